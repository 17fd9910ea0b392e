//! What every view must be: no wider than the screen, readable, and quiet.

use serde_json::Value;

use crate::browser::Browser;

/// That nothing is wider than a laptop's screen, and nobody's script ran.
pub(crate) fn sound(browser: &Browser, view: &str) {
    let wide = browser
        .value("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(wide, 0, "{view} scrolls sideways");
    assert_eq!(
        browser.value("window.broken ?? null"),
        Value::Null,
        "{view} ran a text"
    );
    assert_eq!(browser.complaints(), Vec::<String>::new(), "{view}");
}

/// Contrast of the worst text on the page, WCAG's ratio, and that text.
const CONTRAST: &str = "(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let worst = [99, ''];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest('[disabled], .sr, .skip')) continue;
    const style = getComputedStyle(element);
    const [one, two] = [light(parse(element.closest('svg') ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.innerText ?? element.textContent];
  }
  return worst;
})()";

/// That every text can be read by who sees less well: WCAG's 4.5 to 1.
pub(crate) fn readable(browser: &Browser, view: &str) {
    let worst = browser.value(CONTRAST);
    let ratio = worst[0].as_f64().unwrap();
    assert!(
        ratio >= 4.5,
        "{view}: {} has a contrast of {ratio:.2}",
        worst[1]
    );
}
