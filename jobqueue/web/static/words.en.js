// The texts of the scripts, in English. A language is one file like this one.
export const words = {
  locale: "en",
  offline: "Not connected. Trying again…",
  live: "Live",
};
