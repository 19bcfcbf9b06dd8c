-- Tells what the ledger says of a window that is not known yet.
-- KEYS: as in take.lua. ARGV: per window: decided, direct, and after how long it may be forgotten (ms).
for i, key in ipairs(KEYS) do
  if redis.call('HSETNX', key, 'd', ARGV[3 * i - 2]) == 1 then
    redis.call('HSET', key, 'x', ARGV[3 * i - 1])
    redis.call('PEXPIRE', key, ARGV[3 * i])
  end
end
return 'ok'
