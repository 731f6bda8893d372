-- embed_spec.lua -- examples/embed.c, the C program that carries the runtime: it runs, and its gradients are right.

describe("examples/embed.c", function()
  local program = ("build/%s/embed"):format(os.getenv("GQ_TEST_CONFIG") or "release")

  it("solves, differentiates, and runs a script", function()
    local out, status = require("tests.helper").output(program)
    assert.equal(0, status, out)
    local exact = -2 * 6 * math.exp(-0.7 * 2)
    local error_c = tonumber(out:match("largest relative error (%S+)"))
    assert.truthy(error_c and error_c < 1e-6, out)
    assert.close(tonumber(out:match("C%s+dL/dk (%S+),")), exact, 1e-6)
    assert.close(tonumber(out:match("exact (%S+)")), exact, 1e-8)
    assert.close(tonumber(out:match("Lua%s+dL/dk (%S+)")), exact, 1e-6)
  end)
end)
