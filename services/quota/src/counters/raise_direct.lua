-- Raises what was recorded after the fact to a total; less than is known is old news. A cold window keeps it
-- for its seed, which may have read the ledger before.
-- KEYS: one hash a window, as in take.lua. ARGV: per window: the total, and after how long it may be
--   forgotten (ms).
for i, key in ipairs(KEYS) do
  local x = tonumber(redis.call('HGET', key, 'x') or '-1')
  if tonumber(ARGV[2 * i - 1]) > x then
    redis.call('HSET', key, 'x', ARGV[2 * i - 1])
    redis.call('PEXPIRE', key, ARGV[2 * i])
  end
end
return { 'ok' }
