// Search without a server. A browser starts no worker from a file, and the theme's search is one:
// where the site is opened as files, run the worker's script in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      const inside = frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.send = (data) => inside.dispatchEvent(new inside.MessageEvent("message", { data }));
      const script = inside.document.createElement("script");
      script.src = url;
      script.onload = () => {
        this.loaded = true;
        this.waiting.splice(0).forEach(this.send);
      };
      inside.document.body.appendChild(script);
    }

    postMessage(data) {
      if (this.loaded) this.send(data);
      else this.waiting.push(data);
    }

    terminate() {}
  };
}
