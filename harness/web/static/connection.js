// Changes of the page's state, as the server sends them, and the switch between light and dark.

const byId = id => document.getElementById(id);

const SILENT = 45000;  // milliseconds without a message after which a stream is taken to be cut off

// Call `onChange` with the values that changed, `onState` with true or false as the stream is there or not.
// A page that nobody sees reads nothing; when it is seen again, it receives what changed since.
export function follow(onChange, onState) {
  let stream = null, version = 0, silence;
  function open() {
    if (stream || document.hidden) return;
    stream = new EventSource(`events?after=${version}`);
    stream.onopen = () => onState(true);
    listen();
    stream.onmessage = event => {
      listen();
      if (event.lastEventId) version = Number(event.lastEventId);
      onChange(JSON.parse(event.data));
    };
    stream.onerror = () => {
      onState(false);
      if (stream.readyState === EventSource.CLOSED) {
        close();
        setTimeout(open, 5000);
      }
    };
  }
  function listen() {
    clearTimeout(silence);
    silence = setTimeout(reopen, SILENT);
  }
  function close() {
    clearTimeout(silence);
    stream?.close();
    stream = null;
  }
  function reopen() {
    close();
    open();
  }
  document.addEventListener("visibilitychange", () => document.hidden ? close() : reopen());
  document.addEventListener("freeze", close);
  document.addEventListener("resume", reopen);
  addEventListener("pagehide", close);
  addEventListener("pageshow", reopen);
  open();
}

export function showState(element, isConnected, words) {
  element.className = `state ${!isConnected ? "off" : words === "at work" ? "live" : ""}`;
  element.textContent = isConnected ? words : "the command that shows this page has ended, or is away";
}

export function showNotice(notice) {
  const element = byId("notice");
  element.hidden = !notice;
  element.textContent = notice?.text ?? "";
  element.className = `notice ${notice?.kind ?? ""}`;
  document.body.classList.toggle("gone", notice?.kind === "gone");
}

export function switchTone(onSwitch) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  byId("tone").addEventListener("click", () => {
    const now = document.documentElement.dataset.tone || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.tone = now === "dark" ? "light" : "dark";
    onSwitch();
  });
  dark.addEventListener("change", onSwitch);
}
