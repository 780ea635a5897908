// Which names classes may have, as in cdl/device/names.py and `check_new_name` in cdl/device/items.py.

const SCRIPTS = "[\\u0590-\\u1fff\\u2100-\\u{10ffff}]", JOINERS = new RegExp(`(?<=${SCRIPTS})[\\u200c\\u200d](?=${SCRIPTS})`, "gu");

/** Return the name of a class that can be that of a folder, in Unicode's form NFC and without space around it; refuse others. */
export function checkName(name) {
  const found = name.normalize("NFC").trim(), visible = name.replace(JOINERS, "");
  if (!found || /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}/\\]/u.test(visible) || found.startsWith(".") || new TextEncoder().encode(found).length > 255) {
    throw new Error(`${JSON.stringify(name)}: invalid class name; expected up to 255 bytes, no slash, no leading dot, no line break, no invisible character`);
  }
  return found;
}
