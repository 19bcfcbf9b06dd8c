-- Takes from every window or from none, once for a request.
-- KEYS: the request's mark, then one hash a window, all of one account (one hash tag). A mark has the fields
--   h (hash of the content), a (the attempt that wrote it last) and t (what the first one took); a window d
--   (decided), x (direct) and s (when it was seeded). A window without d is cold.
-- ARGV: the content's hash, the attempt, what it takes, after how long the mark may be forgotten (ms); then per
--   window: the amount, the most it may hold (-1: no end), and after how long it may be forgotten (ms).
-- Answers {"before", t}, {"reused"}, {"cold", index...}, or {"yes" | "no", d, x, ...}.
local mark, first = KEYS[1], 5
local before = redis.call('HMGET', mark, 'h', 't')
if before[1] then
  if before[1] ~= ARGV[1] then
    return { 'reused' }
  end
  redis.call('HSET', mark, 'a', ARGV[2])
  redis.call('PEXPIRE', mark, ARGV[4])
  return { 'before', before[2] }
end
local cold, levels, room = {}, {}, true
for i = 2, #KEYS do
  local level = redis.call('HMGET', KEYS[i], 'd', 'x')
  if not level[1] then
    cold[#cold + 1] = i - 2
  else
    local d, x = tonumber(level[1]), tonumber(level[2] or '0')
    local amount = tonumber(ARGV[first + 3 * (i - 2)])
    local max = tonumber(ARGV[first + 3 * (i - 2) + 1])
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
redis.call('HSET', mark, 'h', ARGV[1], 'a', ARGV[2], 't', ARGV[3])
redis.call('PEXPIRE', mark, ARGV[4])
for i = 2, #KEYS do
  levels[2 * i - 3] = redis.call('HINCRBY', KEYS[i], 'd', ARGV[first + 3 * (i - 2)])
  redis.call('PEXPIRE', KEYS[i], ARGV[first + 3 * (i - 2) + 2])
end
return { 'yes', unpack(levels) }
