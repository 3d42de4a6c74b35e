// Command web serves a small website: compressed for those who take it, with
// entity tags, as a web server in front of a folder does.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"html"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/engines/images/internal/serve"
)

const page = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>%[1]s</title>
<style>
body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 4rem auto; padding: 0 1rem; color: #223; background: #fdfcf8 }
pre { font-size: 1.2rem; line-height: 1.2 }
small { color: #778 }
</style>
<pre>
 /\_/\
( o.o )
 > ^ <
</pre>
<h1>%[1]s</h1>
<p>A cat of mixed breed, answering from a container.</p>
<p><small>version %[2]s, on %[3]s</small></p>
</html>
`

func main() {
	title := os.Getenv("TITLE")
	if title == "" {
		title = "The cats"
	}
	where, _ := os.Hostname()
	for _, name := range []string{"MOGGY_NODE", "NOMAD_ALLOC_ID"} {
		if v := os.Getenv(name); v != "" {
			where = v
		}
	}
	plain := fmt.Appendf(nil, page, html.EscapeString(title), html.EscapeString(os.Getenv("VERSION")), html.EscapeString(where))
	var small bytes.Buffer
	z := gzip.NewWriter(&small)
	_, err := z.Write(plain)
	if err == nil {
		err = z.Close()
	}
	tag := fmt.Sprintf("%x", sha256.Sum256(plain))[:16]
	serve.Main(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" && r.URL.Path != "/index.html" {
			http.NotFound(w, r)
			return
		}
		body, suffix := plain, ""
		w.Header().Set("Vary", "Accept-Encoding")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			body, suffix = small.Bytes(), "-gzip"
			w.Header().Set("Content-Encoding", "gzip")
		}
		w.Header().Set("ETag", `"`+tag+suffix+`"`)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}), err)
}
