-- The examples as a user runs them: --help, --quick with its --json record, --resume, wrong options.

local gq = require "gq"
local assert = require "luassert"
local helper = require "tests.helper"
local read = helper.read
local gqlua = helper.gqlua
local folder = helper.folder()

local function run(script, arguments)
  local out, err = folder .. "/out", folder .. "/err"
  script = script:find("/", 1, true) and script or "examples/" .. script
  local command = ("%s %s.lua %s >%s 2>%s </dev/null"):format(gqlua, script, arguments, out, err)
  local ok, _, code = os.execute(command)
  return read(out), read(err), ok and 0 or code
end

local function record(script, arguments)
  local path = folder .. "/record.json"
  os.remove(path)
  local out, err, code = run(script, ("--quick --json %s %s"):format(path, arguments or ""))
  assert.same(0, code, err)
  assert.same("", err)
  return gq.json.decode(read(path)), out
end

local examples = {
  train_ou = { metrics = { "test_kl" }, train = "train_kl" },
  nested_spheres = { metrics = { "test_accuracy", "test_loss" }, train = "train_loss" },
  sines = { metrics = { "test_mse" }, train = "train_mse" },
  crossing = { metrics = { "test_mse" }, train = "train_mse" },
  cnf = { metrics = { "test_nll" }, train = "train_nll" },
  latent_ode = { metrics = { "test_mse", "test_extrapolation_mse" }, train = "train_loss" },
}

for script, e in pairs(examples) do
  describe("examples/" .. script, function()
    it("--help lists its options", function()
      local out, _, code = run(script, "--help")
      assert.same(0, code)
      for _, name in ipairs { "--epochs", "--width", "--lr", "--batch-size", "--gradient", "--C", "--rtol", "--atol",
        "--trajectory", "--impulses", "--seed", "--seeds", "--out", "--json", "--quick", "--quiet", "--resume",
        "--device", "--help" } do
        assert.matches(name, out, 1, true)
      end
    end)

    it("writes a record of config, epochs and summary", function()
      local r, out = record(script, "--gradient gq")
      assert.matches("epoch   1", out, 1, true)
      assert.same(2, r.config.epochs)
      assert.same("gq", r.config.gradient)
      assert.same(3, #r.epochs)
      for i, row in ipairs(r.epochs) do
        assert.same(i - 1, row.epoch)
        for _, m in ipairs(e.metrics) do assert.is_number(row[m]) end
        if i > 1 then
          for _, m in ipairs { e.train, "seconds", "nfe", "nfe_backward", "nodes" } do assert.is_number(row[m]) end
          assert.is_true(row.nfe > 0 and row.nfe_backward > 0 and row.nodes >= 1)
        end
      end
      for _, m in ipairs(e.metrics) do assert.same(r.epochs[3][m], r.summary[m]) end
      assert.is_true(r.summary.peak_bytes > 0)
      assert.is_true(r.summary.seconds_per_step > 0)
    end)

    it("runs with every engine, from nearly the same first loss", function()
      local first
      for _, engine in ipairs { "direct", "aca", "adjoint", "seminorm", "gq", "gqc" } do
        local r = record(script, "--quiet --epochs 1 --gradient " .. engine)
        first = first or r.epochs[2][e.train]
        assert.is_true(math.abs(r.epochs[2][e.train] / first - 1) < 0.05, engine)
      end
    end)

    it("is silent with --quiet, and the same seed gives the same figures", function()
      local a, out = record(script, "--quiet --seed 4")
      assert.same("", out)
      local b = record(script, "--quiet --seed 4")
      for i, row in ipairs(a.epochs) do
        for _, m in ipairs(e.metrics) do assert.same(row[m], b.epochs[i][m]) end
        assert.same(row[e.train], b.epochs[i][e.train])
      end
    end)

    it("several seeds give means", function()
      local r = record(script, "--quiet --epochs 1 --seeds 2")
      assert.same(2, r.summary.seeds)
      assert.same(4, #r.epochs)
      assert.same({ 1, 1, 2, 2 }, { r.epochs[1].seed, r.epochs[2].seed, r.epochs[3].seed, r.epochs[4].seed })
      local m = e.metrics[1]
      assert.is_true(math.abs(r.summary[m] - (r.epochs[2][m] + r.epochs[4][m]) / 2) < 1e-9)
      assert.is_number(r.summary[m .. "_std"])
    end)

    it("continues from its checkpoint with --resume, to the same figures", function()
      local out = folder .. "/runs-" .. script
      local whole = record(script, "--quiet --epochs 3")
      record(script, "--quiet --epochs 1 --out " .. out)
      local resumed = record(script, "--quiet --epochs 3 --resume --out " .. out)
      assert.same(#whole.epochs, #resumed.epochs)
      for i, row in ipairs(whole.epochs) do
        assert.same(row[e.metrics[1]], resumed.epochs[i][e.metrics[1]])
        assert.same(row[e.train], resumed.epochs[i][e.train])
      end
    end)

    it("wrong options are refused in one line", function()
      local _, err, code = run(script, "--epoch 3")
      assert.same(2, code)
      assert.matches("unknown option --epoch, did you mean --epochs?", err, 1, true)
      _, err, code = run(script, "--width many")
      assert.same(2, code)
      assert.matches("--width: an integer expected", err, 1, true)
      for arguments, message in pairs { ["--resume"] = "--resume needs --out", ["--seeds 0"] = "at least 1 expected",
        ["--device tpu"] = 'this build has "cpu"', ["--width"] = "a value is missing",
        ["--json --width 3"] = "--json: a value is missing", ["--quick=1"] = "takes no value",
        ["--trajectory back"] = "checkpoint or interpolated expected" } do
        _, err, code = run(script, arguments)
        assert.same(2, code)
        assert.matches(message, err, 1, true)
      end
      _, err, code = run(script, "--quick --gradient magic")
      assert.is_true(code ~= 0)
      assert.matches("magic", err, 1, true)
    end)
  end)
end

describe("backward solves of sines", function()
  it("by restarts or moments, kept or solved again, give nearly the same training", function()
    for _, times in ipairs { "", "--irregular " } do
      local first
      for trajectory, impulses in helper.each({ "reverse", "dense" }, { "restart", "moments" }) do
        local r = record("sines", ("--quiet --rtol 1e-5 --atol 1e-5 %s--trajectory %s --impulses %s"):format(times,
          trajectory, impulses))
        assert.same({ trajectory, impulses }, { r.config.trajectory, r.config.impulses })
        first = first or r.epochs[3].train_mse
        assert.is_true(math.abs(r.epochs[3].train_mse / first - 1) < 0.02)
      end
    end
  end)

  it("read irregular times in batches of any size", function()
    assert.is_number(record("sines", "--quiet --irregular --batch-size 3").summary.test_mse)
  end)
end)

describe("examples/cnf", function()
  it("learns every density by either trace, compares, and keeps samples", function()
    for _, density in ipairs(gq.data.densities) do
      local out = folder .. "/" .. density
      local r, text = record("cnf", ("--density %s --trace hutchinson --samples 7 --out %s"):format(density, out))
      assert.same({ density, "hutchinson", "rademacher" }, { r.config.density, r.config.trace, r.config.noise })
      assert.is_number(r.summary.test_nll_normal)
      assert.equal(density ~= "pinwheel", r.summary.test_nll_density ~= nil)
      assert.matches("under a normal fit", text, 1, true)
      local samples = gq.load(("%s/cnf-%s-seed1-samples.npy"):format(out, density))
      assert.same({ 7, 2 }, samples.shape)
      assert.same(samples:totable(), gq.load(("%s/cnf-%s-seed1-samples.csv"):format(out, density)):totable())
    end
    assert.is_number(record("cnf", "--quiet --trace hutchinson --noise gaussian").summary.test_nll)
    local _, err, code = run("cnf", "--density moon")
    assert.same(2, code)
    assert.matches("--density: checkerboard, circles, ", err, 1, true)
    _, err, code = run("cnf", "--samples 0")
    assert.same(2, code)
    assert.matches("--samples: at least 1 expected, got 0", err, 1, true)
  end)

  it("gets nearer to the density", function()
    local r = record("cnf", "--quiet --epochs 30 --lr 2e-2 --gradient auto")
    assert.is_true(r.epochs[31].test_nll < r.epochs[1].test_nll - 0.5)
    assert.is_true(r.epochs[31].test_nll > r.summary.test_nll_density)
  end)
end)

describe("examples/latent_ode", function()
  it("trains alike by restarts and moments, and reads series of any length", function()
    local a = record("latent_ode", "--quiet --rtol 1e-5 --atol 1e-5 --impulses restart")
    local b = record("latent_ode", "--quiet --rtol 1e-5 --atol 1e-5 --impulses moments")
    assert.is_true(math.abs(a.epochs[3].train_loss / b.epochs[3].train_loss - 1) < 1e-3)
    for _, arguments in ipairs { "--times 1", "--batch-size 1 --latent 1", "--anneal 0", "--batch-size 3" } do
      assert.is_number(record("latent_ode", "--quiet " .. arguments).summary.test_mse)
    end
  end)

  it("comes nearer to the series between observations", function()
    local r = record("latent_ode", "--quiet --epochs 60 --series 32 --times 10 --width 16 --gradient gqc")
    assert.is_true(r.epochs[61].test_mse < 0.5 * r.epochs[1].test_mse)
  end)
end)

describe("examples of SDEs", function()
  it("train a latent SDE by every engine of gq.sdeint", function()
    local first
    for _, engine in ipairs { "auto", "direct", "aca", "adjoint" } do
      local r = record("latent_sde", "--quiet --gradient " .. engine)
      first = first or r.epochs[2].train_loss
      assert.is_true(math.abs(r.epochs[2].train_loss / first - 1) < 0.05, engine)
      for _, m in ipairs { "test_loss", "test_mse", "test_kl" } do assert.same(r.epochs[3][m], r.summary[m]) end
    end
  end)

  it("bring the latent SDE nearer to its series", function()
    local r = record("latent_sde", "--quiet --epochs 15 --series 32 --width 16 --anneal 0")
    assert.is_true(r.epochs[16].test_loss < 0.8 * r.epochs[1].test_loss)
  end)

  it("train an SDE-GAN, by reversible steps undone as by direct", function()
    local a, b = record("sde_gan", "--quiet"), record("sde_gan", "--quiet --gradient direct")
    assert.is_true(math.abs(a.epochs[3].train_loss - b.epochs[3].train_loss) < 1e-3)
    assert.is_number(a.summary.test_kl)
  end)
end)

describe("examples/toy_gradient", function()
  it("meets the errors of figure 1", function()
    local limits = { loss = 1.2e-5, z0 = 6e-6, a = 3e-5, T = 3.5e-5 }      -- its axes
    for _, dtype in ipairs { "float32", "float64" } do
      local r, out = record("toy_gradient", "--dtype " .. dtype)
      assert.matches("relative error of dL/dz0", out, 1, true)
      assert.same(2 * 5, #r.rows)
      for _, engine in ipairs { "direct", "aca", "adjoint", "seminorm", "gq" } do
        for q, limit in pairs(limits) do
          assert.is_true(r.summary[engine][q] > 0 and r.summary[engine][q] < limit, engine .. " " .. q)
        end
      end
      for q in pairs(limits) do assert.is_true(r.summary.gq[q] < 2 * r.summary.adjoint[q], q) end
    end
  end)

  it("runs the engines and times that are asked for", function()
    local r, out = record("toy_gradient", "--quiet --gradients gq,direct --T 5")
    assert.same("", out)
    assert.same({ "gq", "direct" }, r.config.gradients)
    assert.same(2, #r.rows)
    local _, err, code = run("toy_gradient", "--T soon")
    assert.same(2, code)
    assert.matches("--T: numbers with commas expected, got \"soon\"", err, 1, true)
  end)
end)

describe("examples/memory", function()
  it("is flat in the tolerance by adjoint and gq, and grows by direct and aca", function()
    local r, out = record("memory", "--paper")
    assert.matches("growth", out, 1, true)
    for _, row in ipairs(r.rows) do assert.is_true(row.peak_bytes > 0 and row.steps > 0) end
    for _, engine in ipairs { "adjoint", "seminorm", "gq" } do assert.is_true(r.summary[engine].growth < 1.05) end
    for _, engine in ipairs { "direct", "aca" } do assert.is_true(r.summary[engine].growth > 1.1) end
  end)
end)

describe("scripts/reproduce", function()
  local function lines(path)
    local _, n = read(path):gsub("\n", "")
    return n
  end

  it("runs figures and tables, goes on where it was, and writes ours beside the paper's", function()
    local out = folder .. "/reproduce"
    local arguments = "fig2 table4 --quick --seeds 2 --out " .. out
    local text, err, code = run("scripts/reproduce", arguments)
    assert.same({ 0, "" }, { code, err })
    assert.matches("table4: 50 irregular, seed 2", text, 1, true)
    assert.same(4 + 4 * 2, lines(out .. "/runs.jsonl"))

    local t = gq.json.decode(read(out .. "/table4-quick.json"))
    assert.same(4, #t.rows)
    local row = t.rows[2]
    assert.same({ "10 irregular", 2 }, { row.case, row.runs })
    local f = row.figures.test_mse
    assert.same({ 0.07, 0.06 }, { f.paper.mean, f.paper.deviation })
    assert.is_true(math.abs(f.ours.mean - (f.ours.each[1] + f.ours.each[2]) / 2) < 1e-9 and f.ours.deviation > 0)
    assert.is_true(math.abs(row.paper_ratio - 239.2 / 48.5) < 1e-9 and row.seconds_ratio > 0)
    assert.matches("10 irregular  2 .* 0.07 %+%- 0.06 ", read(out .. "/table4-quick.txt"))
    assert.matches("gq .* constant", read(out .. "/fig2-quick.txt"))

    -- all but the first of its lines lost, and the second cut off
    local file = assert(io.open(out .. "/runs.jsonl", "r+"))
    local first = file:read("L")
    file:close()
    gq.file_write(out .. "/runs.jsonl", first .. first:sub(1, 40))
    local again
    again, err, code = run("scripts/reproduce", arguments)
    assert.same({ 0, "" }, { code, err })
    assert.same(text:match("tolerance.*growth"), again:match("tolerance.*growth"))
    assert.same(2 + 3 + 4 * 2, lines(out .. "/runs.jsonl"))
    run("scripts/reproduce", arguments)
    assert.same(2 + 3 + 4 * 2, lines(out .. "/runs.jsonl"))
  end)

  it("runs some cases, with options of one's own", function()
    local out = folder .. "/some"
    local some = "fig16 --quick --cases 'width 5, gq' --extra '--epochs 1' --out " .. out
    local text, err, code = run("scripts/reproduce", some)
    assert.same({ 0, "" }, { code, err })
    assert.matches("width 5, gq", text, 1, true)
    local r = gq.json.decode(read(out .. "/records/crossing_gradient_gq_paper_width_5_seed_1_quick_epochs_1.json"))
    assert.same({ 1, "gq", 5, 2 }, { r.config.epochs, r.config.gradient, r.config.width, #r.epochs })
  end)

  it("leaves out what takes days, and tells so", function()
    local text, err, code = run("scripts/reproduce", "fig12 --cases '128 channels' --out " .. folder .. "/large")
    assert.same({ 0, "" }, { code, err })
    assert.matches("128 channels, gq +0 of 3 +at least 86.0", text)
    text, err, code = run("scripts/reproduce", "fig13_fashion --quick --cases '64 channels, gq' --out " .. folder
      .. "/large")
    assert.same({ 0, "" }, { code, err })
    assert.matches("64 channels, gq +1 ", text)
  end)

  it("pairs the ways to train by seed, draws, and tells what was not run", function()
    local out = folder .. "/ways"
    local given = "fig7 fig14 fig15 --quick --seeds 2 --out " .. out .. " --cases "
    local _, err, code = run("scripts/reproduce", given .. "gq")
    assert.same({ 0, "" }, { code, err })
    for _, name in ipairs { "fig14-quick.svg", "fig15-quick.svg" } do
      assert.matches("<svg", read(("%s/%s"):format(out, name)), 1, true)
    end
    local made = lines(out .. "/runs.jsonl")
    run("scripts/reproduce", given:gsub("fig14 fig15 ", "") .. "'width 5, sde-direct'")
    assert.same(made + 2, lines(out .. "/runs.jsonl"))
    local text
    text, err, code = run("scripts/reproduce", "fig7 --quick --finished --seeds 3 --out " .. out)
    assert.same({ 0, "" }, { code, err })
    assert.same(made + 2, lines(out .. "/runs.jsonl"))
    assert.matches("width 5, sde%-adjoint +0 of 3 +%-", text)
    assert.matches("width 5, sde%-direct +2 of 3 ", text)
    local rows, by = gq.json.decode(read(out .. "/fig7-quick.json")).rows, {}
    for _, row in ipairs(rows) do by[row.case] = row end
    local a, b = by["width 5, sde-direct"], by["width 5, gq"]
    local x, y = a.figures.test_kl.ours.each, b.figures.test_kl.ours.each
    assert.near(((x[1] - y[1]) + (x[2] - y[2])) / 2, a.paired.mean, 1e-9)
    assert.near(math.abs((x[1] - y[1]) - (x[2] - y[2])) / 2, a.paired.error, 1e-9)
    assert.is_nil(b.paired)
  end)

  it("says what is wrong", function()
    local _, err, code = run("scripts/reproduce", "fig3")
    assert.same(2, code)
    assert.matches("fig3: no such figure or table; there are", err, 1, true)
    _, err, code = run("scripts/reproduce", "--quick")
    assert.same(2, code)
    assert.matches("a figure or table expected", err, 1, true)
    _, err, code = run("scripts/reproduce", "fig2 --quick --extra --nonsense --out " .. folder .. "/wrong")
    assert.same(1, code)
    assert.matches("unknown option --nonsense", err, 1, true)
    assert.matches("4 runs failed", err, 1, true)
    _, err, code = run("scripts/reproduce", "fig2 --cases mali --out " .. folder .. "/wrong")
    assert.same(2, code)
    assert.matches('fig2 has no case whose label contains "mali"', err, 1, true)
  end)
end)

describe("examples/train_ou", function()
  it("--cosines 0 trains the drift alone", function()
    local r = record("train_ou", "--quiet --cosines 0")
    assert.same(0, r.config.cosines)
    assert.is_number(r.summary.test_kl)
  end)
end)

describe("examples/images", function()
  it("learns, shows what is taken for what, and tells how fast", function()
    local r, out = record("images", "--epochs 1")
    assert.matches("epoch   1 .* images/s", out)
    assert.matches("standing +%d+ +%d+ +%d+ +%d+", out)
    assert.same({ 0, 1 }, { r.epochs[1].epoch, r.epochs[2].epoch })
    assert.is_true(r.epochs[2].test_loss < r.epochs[1].test_loss)
    assert.same("bars", r.config.dataset)
  end)

  it("stopped in the middle of an epoch, continues to the same figures", function()
    local out = folder .. "/runs-images"
    local whole = record("images", "--quiet --augment --gradient gq")
    record("images", "--quiet --augment --gradient gq --every 2 --steps 4 --out " .. out)
    local resumed = record("images", "--quiet --augment --gradient gq --resume --out " .. out)
    assert.same(3, #resumed.epochs)
    for i, row in ipairs(whole.epochs) do
      for _, m in ipairs { "train_loss", "test_loss", "test_accuracy" } do assert.same(row[m], resumed.epochs[i][m]) end
    end
  end)

  it("names what is wrong", function()
    local out, _, code = run("images", "--help")
    assert.same(0, code)
    for _, name in ipairs { "--dataset", "--channels", "--batch-size", "--epochs", "--augment", "--gradient" } do
      assert.matches(name, out, 1, true)
    end
    local _, err, status = run("images", "--dataset imagenet")
    assert.same(2, status)
    assert.matches("mnist, fashion_mnist, cifar10, cifar100, svhn, images or bars expected", err, 1, true)
    _, err, status = run("images", "--dataset images --train 3")
    assert.is_true(status ~= 0)
    assert.matches("leave --train and --test out", err, 1, true)
    _, err, status = run("images", "--dataset mnist --data " .. folder)
    assert.is_true(status ~= 0)
    assert.matches("train-images-idx3-ubyte", err, 1, true)
  end)
end)
