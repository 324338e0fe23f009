// The texts of the scripts, in English. A language is one file like this one.
const number = new Intl.NumberFormat("en");

export const words = {
  locale: "en",
  offline: "Not connected. Trying again…",
  live: "Live",
  all: "Select all jobs of this page",
  none: "Selected jobs:",
  selected: (count) => `${number.format(count)} selected:`,
  pause: "Pause",
  go: "Go on",
  left: (count) => `${number.format(count)} more were too many to show`,
};
