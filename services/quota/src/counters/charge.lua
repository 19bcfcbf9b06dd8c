-- Charges what was allowed and recorded without the counters, once for a request.
-- KEYS: as in take.lua. ARGV: the content's hash, the attempt, what it took, after how long the mark may be
--   forgotten (ms), when the ledger had it (us); then per window the amount.
-- A window that is cold, or was seeded since, has it from the ledger.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return { 'before' }
end
redis.call('HSET', KEYS[1], 'h', ARGV[1], 'a', ARGV[2], 't', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
for i = 2, #KEYS do
  local window = redis.call('HMGET', KEYS[i], 'd', 's')
  if window[1] and tonumber(window[2] or '0') < tonumber(ARGV[5]) then
    redis.call('HINCRBY', KEYS[i], 'd', ARGV[4 + i])
  end
end
return { 'charged' }
