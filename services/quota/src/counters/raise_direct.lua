-- Raises what was recorded after the fact to a total; less than is known is old news.
-- KEYS: as in take.lua. ARGV: per window the total.
for i, key in ipairs(KEYS) do
  local x = tonumber(redis.call('HGET', key, 'x') or '-1')
  if x >= 0 and tonumber(ARGV[i]) > x then
    redis.call('HSET', key, 'x', ARGV[i])
  end
end
return 'ok'
