-- Takes back the numbers of pins. Nothing is lost: they follow from pins. Without them, the pinning API refuses lists
-- until it is replaced by an older version.

DROP TRIGGER pins_count_insert ON pins;
DROP TRIGGER pins_count_update ON pins;
DROP TRIGGER pins_count_delete ON pins;
DROP TRIGGER pins_count_truncate ON pins;
DROP FUNCTION IF EXISTS public.account_pin_count(text, text[]);
DROP FUNCTION count_account_pins();
DROP FUNCTION add_account_pins(varchar, bigint, bigint, bigint, bigint);
DROP TABLE account_pins;
