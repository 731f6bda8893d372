-- ablate_c.lua -- what the constant C of eq. (9), the number of quadrature nodes, does to time and accuracy: Table 2
-- of Norcliffe & Deisenroth (2023) in miniature, by gq.sweep; the paper took --epochs 100 --seeds 5.

local gq = require "gq"

local o = gq.cli {
  about = "Train nested_spheres.lua with several C, ceil(C NFE dt / T) nodes, and print test accuracy and seconds.",
  { "C", { 1e-3, 0.1, 1e2, 1e5 }, "constants", "numbers" }, { "epochs", 20 }, "width", { "seeds", 2 },
  { "workers", 1, "runs at a time", "integer", 1 },
  { "out", "runs/ablate_c", "directory of the runs; those that are there are not run again" },
  { "format", "text", "of the table", "text|markdown|latex|csv" }, "quick",
}
if not o then return end

local folder = (arg[0]:match("^(.*)/") or ".")
local lines = gq.sweep { script = folder .. "/nested_spheres.lua", grid = { C = o.C }, seeds = o.seeds,
  options = { paper = true, epochs = o.quick and 1 or o.epochs, width = o.quick and 5 or o.width, quick = o.quick },
  workers = o.workers, out = o.out, quiet = true }
print(gq.tabulate(lines, { by = "C", mean = "accuracy,seconds", format = o.format }))
