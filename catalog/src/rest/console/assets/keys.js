// Arrow keys in lists. A row is an element with data-row that can take the focus.

function rowsOf(list) {
  return [...list.querySelectorAll("[data-row]")];
}

/** The row that leads to an address. */
export function rowOf(list, href) {
  return rowsOf(list).find((row) => row.getAttribute("href") === href);
}

/** Down from a search field goes to the first row. */
export function downInto(event, list) {
  const [first] = rowsOf(list);
  if (event.key === "Enter" && first && rowsOf(list).length === 1) first.click();
  if (event.key !== "ArrowDown" || !first) return;
  event.preventDefault();
  first.focus();
}

/** Up, Down, Home and End move through the rows; Up from the first goes back to the search field. */
export function listKeys(list, search) {
  list.addEventListener("keydown", (event) => {
    const rows = rowsOf(list);
    const at = rows.indexOf(document.activeElement);
    if (at < 0) return;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to < 0) search?.focus();
    else rows[Math.min(to, rows.length - 1)].focus();
  });
}
