-- ablate_cosines.lua -- how many terms of the noise's expansion train_ou needs: Table 6 of Norcliffe & Deisenroth
-- (2023) in miniature, by gq.sweep. --epochs 100 --seeds 5 is the table itself.

local gq = require "gq"

local o = gq.cli {
  about = "Train train_ou.lua with 0, 1, 5, ... cosines for the noise, and print test KL divergence and seconds.",
  { "cosines", { 0, 1, 5, 10 }, "numbers of cosines (the paper's: 0,1,5,10,25,50)", "numbers" },
  { "epochs", 20 }, "width", { "seeds", 2 },
  { "workers", 1, "runs at a time", "integer", 1 },
  { "out", "runs/ablate_cosines", "directory of the runs; those that are there are not run again" },
  { "format", "text", "of the table", "text|markdown|latex|csv" }, "quick",
}
if not o then return end

local paper = { [0] = "75.55", [1] = "28.01", [5] = "7.49", [10] = "6.50", [25] = "6.18", [50] = "6.12" }
for k, n in ipairs(o.cosines) do o.cosines[k] = math.tointeger(n) or error("--cosines: integers expected", 0) end
local folder = (arg[0]:match("^(.*)/") or ".")
local lines = gq.sweep { script = folder .. "/train_ou.lua", grid = { cosines = o.cosines }, seeds = o.seeds,
  options = { epochs = o.quick and 1 or o.epochs, width = o.quick and 5 or o.width, lr = not o.quick and 5e-3 or nil,
    quick = o.quick }, workers = o.workers, out = o.out, quiet = true }
print(gq.tabulate(lines, { by = "cosines", mean = "kl,seconds", format = o.format }))
local words = {}
for _, n in ipairs(o.cosines) do words[#words + 1] = paper[n] and ("%d: %s"):format(n, paper[n]) end
print("KL x 100 in the paper after 100 epochs: " .. table.concat(words, ", "))
