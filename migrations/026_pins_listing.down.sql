-- Takes back the index for lists. Lists still work without it; with many pins they are slow.

DROP INDEX IF EXISTS public.idx_pins_listing;
