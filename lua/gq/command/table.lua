-- command/table.lua -- `gqlua table runs/ --by width --mean kl,seconds`: gq.tabulate from the shell.

local gq = require "gq"

local o = gq.cli {
  about = "Means and deviations over the runs of a sweep, a row for each configuration.",
  { "by", nil, "the options that make a row (those that were varied)", "list" },
  { "mean", nil, "the figures: names of the summary, kl also finds test_kl (those of the test, seconds)", "list" },
  { "format", "text", "of the table", "text|markdown|latex|csv" },
  words = "DIRECTORIES...",
}
if not o then return end

local function stop(text)
  io.stderr:write("gqlua table: ", text, "\n")
  os.exit(1, true)
end

if #o.words == 0 then stop("the directory of which sweep? gqlua table --help tells more") end
local lines = {}
for _, directory in ipairs(o.words) do
  local ok, more = pcall(gq.sweep_results, directory)
  if not ok then stop(gq.core.said(more, "gq.sweep_results")) end
  if #more == 0 then stop(("%s: no results of a sweep in it"):format(directory)) end
  table.move(more, 1, #more, #lines + 1, lines)
end
local ok, text = pcall(gq.tabulate, lines, { by = o.by, mean = o.mean, format = o.format })
if not ok then stop(gq.core.said(text, "gq.tabulate")) end
print(text)
local why, bad = gq.core.sweep_reasons(lines, "the results file")
if why then io.stderr:write(("%d of %d runs did not end well\n%s\n"):format(bad, #lines, why)) end
