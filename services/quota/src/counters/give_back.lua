-- Gives back what an attempt took, unless a later attempt of the same request took it over; a window that is
-- not known any more will be read from the ledger.
-- KEYS: as in take.lua. ARGV: the attempt, then per window the amount.
if redis.call('HGET', KEYS[1], 'a') ~= ARGV[1] then
  return { 'kept' }
end
redis.call('DEL', KEYS[1])
for i = 2, #KEYS do
  local d = tonumber(redis.call('HGET', KEYS[i], 'd') or '-1')
  if d >= 0 then
    redis.call('HSET', KEYS[i], 'd', string.format('%.0f', math.max(0, d - tonumber(ARGV[i]))))
  end
end
return { 'given back' }
