-- Blocks a content whatever the spelling of its row in blocked_cids.
--
-- cid_content: the multihash of a CID as hex, the same for every base, version and codec. Null for a text that is not a
-- CID. It knows the bases that the pinning API accepts, also with padding, and a leading `/ipfs/` or `ipfs://`. It never
-- fails: other programs write to blocked_cids too.
--
-- fula-node:transaction one
-- fula-node:parts
--   SELECT 'function cid_content(text)' AS part,
--     EXISTS (SELECT FROM pg_proc p WHERE p.oid = to_regprocedure('public.cid_content(text)') AND p.provolatile = 'i') AS there
--   UNION ALL
--   SELECT 'index idx_blocked_cids_content', to_regclass('public.idx_blocked_cids_content') IS NOT NULL

CREATE FUNCTION cid_content(cid text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  given text := regexp_replace(btrim(cid, E' \t\r\n'), '^(/ipfs/|ipfs://)', '');
  base text := left(given, 1);
  digits text := rtrim(substr(given, 2), '=');
  alphabet text;
  digit integer;
  value numeric := 0;
  bits bigint := 0;
  width integer := 0;
  hex text := '';
  at integer := 1;
BEGIN
  IF length(given) > 256 THEN RETURN NULL; END IF;
  IF given ~ '^Qm[1-9A-HJ-NP-Za-km-z]{44}$' THEN
    base := 'z';
    digits := given;
  END IF;
  CASE
    WHEN base IN ('f', 'F') THEN
      hex := lower(digits);
    WHEN base IN ('m', 'M', 'u', 'U') THEN
      hex := encode(decode(rpad(translate(digits, '-_', '+/'), (length(digits) + 3) / 4 * 4, '='), 'base64'), 'hex');
    WHEN base IN ('b', 'B', 'c', 'C') THEN
      FOREACH base IN ARRAY regexp_split_to_array(lower(digits), '') LOOP
        digit := strpos('abcdefghijklmnopqrstuvwxyz234567', base) - 1;
        IF digit < 0 THEN RETURN NULL; END IF;
        bits := ((bits << 5) | digit) & 4095;
        width := width + 5;
        IF width >= 8 THEN
          width := width - 8;
          hex := hex || lpad(to_hex((bits >> width) & 255), 2, '0');
        END IF;
      END LOOP;
    WHEN base IN ('k', 'K', 'z') THEN
      alphabet := CASE WHEN base = 'z' THEN '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
        ELSE '0123456789abcdefghijklmnopqrstuvwxyz' END;
      IF base <> 'z' THEN digits := lower(digits); END IF;
      FOREACH base IN ARRAY regexp_split_to_array(digits, '') LOOP
        digit := strpos(alphabet, base) - 1;
        IF digit < 0 THEN RETURN NULL; END IF;
        value := value * length(alphabet) + digit;
      END LOOP;
      WHILE value > 0 LOOP
        hex := lpad(to_hex((value % 256)::integer), 2, '0') || hex;
        value := div(value, 256);
      END LOOP;
    ELSE
      RETURN NULL;
  END CASE;
  IF hex !~ '^([0-9a-f]{2}){3,}$' THEN RETURN NULL; END IF;
  -- A CIDv0 is the multihash itself.
  IF length(given) = 46 AND digits = given THEN RETURN hex; END IF;
  IF left(hex, 2) <> '01' THEN RETURN NULL; END IF;
  -- The codec is a varint: its last byte is below 128.
  at := 3;
  WHILE substr(hex, at, 1) >= '8' LOOP at := at + 2; END LOOP;
  hex := substr(hex, at + 2);
  RETURN CASE WHEN length(hex) >= 4 THEN hex END;
EXCEPTION WHEN others THEN
  RETURN NULL;
END;
$$;

CREATE INDEX idx_blocked_cids_content ON blocked_cids (cid_content(cid));
