-- Takes back the functions of the pinning API. Without them, it refuses requests until it is replaced by an older version.

DROP FUNCTION IF EXISTS public.pin_account_use(text);
DROP FUNCTION IF EXISTS public.pin_meta(text);
