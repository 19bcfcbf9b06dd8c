-- Tells what the ledger says of a window that is cold.
-- KEYS: one hash a window, as in take.lua. ARGV: before when the ledger was not read yet (us); then per window:
--   decided, direct, and after how long it may be forgotten (ms).
for i, key in ipairs(KEYS) do
  if redis.call('HSETNX', key, 'd', ARGV[3 * i - 1]) == 1 then
    local x = tonumber(redis.call('HGET', key, 'x') or '-1')
    if tonumber(ARGV[3 * i]) > x then
      redis.call('HSET', key, 'x', ARGV[3 * i])
    end
    redis.call('HSET', key, 's', ARGV[1])
    redis.call('PEXPIRE', key, ARGV[3 * i + 1])
  end
end
return { 'ok' }
