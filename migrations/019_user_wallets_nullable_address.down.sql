-- Makes the plain address mandatory again. Refuses while any wallet has none.

LOCK TABLE user_wallets IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
  without_address bigint;
BEGIN
  SELECT count(*) INTO without_address FROM user_wallets WHERE wallet_address IS NULL;
  IF without_address > 0 THEN
    RAISE EXCEPTION '% wallet(s) in user_wallets have no wallet_address', without_address
      USING HINT = 'These rows were written by a service that stores the hash and the encrypted address only. '
                   'Fill in wallet_address for them, or keep the column as it is.';
  END IF;
END;
$$;

ALTER TABLE user_wallets ALTER COLUMN wallet_address SET NOT NULL;
