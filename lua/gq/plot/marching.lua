-- marching.lua -- contour(x, y, z, level): the curves z = level of a grid, by marching squares.
-- z[j][i] is at (x[i], y[j]). Returns lists of points {x..., y...}, curves apart by NaN.

local NAN <const> = 0 / 0

-- Sides of a cell: 1 below, 2 right, 3 above, 4 left. What is cut, by which corners are above the level (bit 0 lower
-- left, then counterclockwise); the two saddles 5 and 10 are cut as if the middle were below.
local cuts <const> = { { { 4, 1 } }, { { 1, 2 } }, { { 4, 2 } }, { { 2, 3 } }, { { 4, 1 }, { 2, 3 } }, { { 1, 3 } },
  { { 4, 3 } }, { { 3, 4 } }, { { 3, 1 } }, { { 1, 2 }, { 3, 4 } }, { { 3, 2 } }, { { 2, 4 } }, { { 2, 1 } },
  { { 1, 4 } } }

-- links[edge] = the edges next to it; an edge is 2 (j n + i) of the side below point (i, j), + 1 of that left of it.
local function links_of(z, level, n, m)
  local links = {}
  local function link(a, b)
    links[a] = links[a] or {}
    table.insert(links[a], b)
  end
  for j = 1, m - 1 do
    for i = 1, n - 1 do
      local a, b, c, d = z[j][i], z[j][i + 1], z[j + 1][i + 1], z[j + 1][i]
      local case = (a > level and 1 or 0) + (b > level and 2 or 0) + (c > level and 4 or 0) + (d > level and 8 or 0)
      local finite = a - a + b - b + c - c + d - d == 0
      local base = 2 * (j * n + i)
      local side = { base, base + 3, base + 2 * n, base + 1 }
      for _, cut in ipairs(finite and cuts[case] or {}) do
        link(side[cut[1]], side[cut[2]])
        link(side[cut[2]], side[cut[1]])
      end
    end
  end
  return links
end

-- Walk from an edge over links that are taken away, so that each is walked once.
local function walk(links, edge, visit)
  while edge do
    visit(edge)
    local next = table.remove(links[edge] or {})
    for k, back in ipairs(next and links[next] or {}) do
      if back == edge then
        table.remove(links[next], k)
        break
      end
    end
    edge = next
  end
end

local function contour(x, y, z, level)
  local n, m = #x, #y
  local links, xs, ys = links_of(z, level, n, m), {}, {}
  local function between(p, q, a, b) return p + (q - p) * (level - a) / (b - a) end
  local function visit(edge)
    local i, j = (edge // 2 - 1) % n + 1, (edge // 2 - 1) // n
    if edge % 2 == 0 then
      xs[#xs + 1], ys[#ys + 1] = between(x[i], x[i + 1], z[j][i], z[j][i + 1]), y[j]
    else
      xs[#xs + 1], ys[#ys + 1] = x[i], between(y[j], y[j + 1], z[j][i], z[j + 1][i])
    end
  end
  local edges = {}
  for edge in pairs(links) do edges[#edges + 1] = edge end
  table.sort(edges)
  for _, ends in ipairs { true, false } do           -- open curves from an end of theirs, then closed ones
    for _, edge in ipairs(edges) do
      while #links[edge] > 0 and (not ends or #links[edge] == 1) do
        walk(links, edge, visit)
        xs[#xs + 1], ys[#ys + 1] = NAN, NAN
      end
    end
  end
  return xs, ys
end

return contour
