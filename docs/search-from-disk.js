// Browsers start no worker for a page that was opened from disk, and the search runs in a worker.
// For such pages alone, run the worker's script in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inner = this.frame.contentWindow
      inner.document.open()
      inner.document.write("<!doctype html><body></body>")
      inner.document.close()
      const run = (source) =>
        new Promise((loaded, failed) => {
          const script = inner.document.createElement("script")
          script.onload = loaded
          script.onerror = failed
          script.src = source
          inner.document.body.append(script)
        })
      inner.importScripts = (...sources) => Promise.all(sources.map(run))
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      this.started = run(url)
    }
    postMessage(data) {
      const inner = this.frame.contentWindow
      this.started.then(() => inner.dispatchEvent(new inner.MessageEvent("message", { data })))
    }
    terminate() {
      this.frame.remove()
    }
  }
}
