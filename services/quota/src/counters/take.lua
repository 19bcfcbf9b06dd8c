-- Takes from every window or from none.
-- KEYS: one hash a window, all of one account (one hash tag), with the fields d (decided) and x (direct).
-- ARGV: per window: the amount, the most it may hold (-1: no end), and after how long it may be forgotten (ms).
-- Answers {"cold", index...}, {"yes", d, x, ...} or {"no", d, x, ...}.
local cold, levels, room = {}, {}, true
for i, key in ipairs(KEYS) do
  local level = redis.call('HMGET', key, 'd', 'x')
  if not level[1] then
    cold[#cold + 1] = i - 1
  else
    local d, x = tonumber(level[1]), tonumber(level[2])
    local amount, max = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1])
    levels[#levels + 1] = d
    levels[#levels + 1] = x
    -- Each is below 2^53, so their sum is told from 2^53 - 1 well enough to refuse it.
    local sum = d + x + amount
    if sum > 9007199254740991 or (max >= 0 and sum > max) then
      room = false
    end
  end
end
if #cold > 0 then
  return { 'cold', unpack(cold) }
end
if not room then
  return { 'no', unpack(levels) }
end
for i, key in ipairs(KEYS) do
  levels[2 * i - 1] = redis.call('HINCRBY', key, 'd', ARGV[3 * i - 2])
  redis.call('PEXPIRE', key, ARGV[3 * i])
end
return { 'yes', unpack(levels) }
