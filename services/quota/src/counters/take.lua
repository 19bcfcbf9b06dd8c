-- Takes from every window or from none, once for a request.
-- KEYS: the request's mark, then one hash a window, all of one account (one hash tag). A mark has the fields
--   h (hash of the content) and a (the attempt that wrote it last); a window d (decided) and x (direct). A
--   window without d is cold.
-- ARGV: the content's hash, the attempt, after how long the mark may be forgotten (ms); then per window: the
--   amount, the most it may hold (-1: no end), and after how long it may be forgotten (ms).
-- Answers {"cold", index...}, {"reused"}, or {"yes" | "no" | "before", d, x, ...}.
local mark, cold, levels, room = KEYS[1], {}, {}, true
for i = 2, #KEYS do
  local level = redis.call('HMGET', KEYS[i], 'd', 'x')
  if not level[1] then
    cold[#cold + 1] = i - 2
  else
    local d, x = tonumber(level[1]), tonumber(level[2] or '0')
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
local before = redis.call('HGET', mark, 'h')
if before and before ~= ARGV[1] then
  return { 'reused' }
end
if not before and not room then
  return { 'no', unpack(levels) }
end
redis.call('HSET', mark, 'h', ARGV[1], 'a', ARGV[2])
redis.call('PEXPIRE', mark, ARGV[3])
if before then
  return { 'before', unpack(levels) }
end
for i = 2, #KEYS do
  levels[2 * i - 3] = redis.call('HINCRBY', KEYS[i], 'd', ARGV[3 * i - 2])
  redis.call('PEXPIRE', KEYS[i], ARGV[3 * i])
end
return { 'yes', unpack(levels) }
