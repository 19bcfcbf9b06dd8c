DROP TABLE place_to_return;
DROP TABLE persona;
