-- Looks at every window.
-- KEYS: one hash a window, as in take.lua.
-- Answers {"cold", index...} or {"levels", d, x, ...}.
local cold, levels = {}, {}
for i, key in ipairs(KEYS) do
  local level = redis.call('HMGET', key, 'd', 'x')
  if not level[1] then
    cold[#cold + 1] = i - 1
  else
    levels[#levels + 1] = tonumber(level[1])
    levels[#levels + 1] = tonumber(level[2] or '0')
  end
end
if #cold > 0 then
  return { 'cold', unpack(cold) }
end
return { 'levels', unpack(levels) }
