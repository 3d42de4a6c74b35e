package ingress

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// configVersion is the format of ingress.json that we read.
const configVersion = 1

// Bounds of what clients may do. Times between two bytes, not for a whole: a large
// download over a slow line is no attack.
const (
	headerTimeout  = 10 * time.Second // until a request's header is whole
	stallTimeout   = 30 * time.Second // a body, either way, that does not go on
	idleTimeout    = 3 * time.Minute  // between two requests
	maxHeaderBytes = 32 << 10
	graceFor       = 10 * time.Second // for requests under way when the ingress stops
)

// Bounds of what backends may do.
const (
	// dialTimeout leaves room for one SYN that is lost (RFC 6298: the next comes
	// after 1 s).
	dialTimeout = 1500 * time.Millisecond
	// tryFor is how long a request waits for some backend: what is restarted costs no
	// failed request when it is back by then.
	tryFor = 4 * time.Second
)

// readConfig reads ingress.json.
func readConfig(path string) (fleet.IngressConfig, fleet.Digest, error) {
	var c fleet.IngressConfig
	text, err := os.ReadFile(path)
	if err != nil {
		return c, "", fmt.Errorf("ingress configuration: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, "", fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case c.Version != configVersion:
		err = fmt.Errorf("version %d, this ingress reads %d", c.Version, configVersion)
	case c.ACME.Directory == "":
		err = errors.New("no ACME directory")
	case !c.V4.IsValid() || !c.V6.IsValid():
		err = errors.New("no mesh")
	}
	if err != nil {
		return c, "", fmt.Errorf("%s: %w", path, err)
	}
	return c, fleet.DigestOf(text), nil
}

// object is JSON of Caddy's.
type object = map[string]any

// engine is Caddy's configuration. What changes from day to day is not in it:
// routes and backends are the table's, which Caddy asks by the modules below, so that
// a change of them closes no connection.
func engine(acme fleet.IngressACME, httpPort, httpsPort int) ([]byte, error) {
	issuer := object{
		"module": "acme", "ca": acme.Directory, "email": acme.Email,
		"challenges": object{"http": object{"alternate_port": httpPort}, "tls-alpn": object{"alternate_port": httpsPort}},
	}
	server := func(port int, handlers ...any) object {
		return object{
			"listen":              []string{fmt.Sprintf(":%d", port)},
			"read_header_timeout": caddy.Duration(headerTimeout), "read_idle_timeout": caddy.Duration(stallTimeout),
			"write_idle_timeout": caddy.Duration(stallTimeout), "idle_timeout": caddy.Duration(idleTimeout),
			"max_header_bytes": maxHeaderBytes,
			"automatic_https":  object{"disable": true},
			"logs":             object{},
			"routes":           []any{object{"handle": handlers}},
			"errors":           object{"routes": []any{object{"handle": []any{object{"handler": "moggy_sorry"}}}}},
		}
	}
	plain := server(httpPort, object{"handler": "moggy_upgrade"})
	plain["protocols"] = []string{"h1"}
	secure := server(httpsPort,
		object{"handler": "moggy_route"},
		object{"handler": "encode", "encodings": object{"zstd": object{}, "gzip": object{}}, "prefer": []string{"zstd", "gzip"}, "minimum_length": 512},
		object{"handler": "moggy_site"},
		object{"handler": "subroute", "routes": []any{
			object{"match": []any{object{"header": object{"Content-Type": []string{"application/grpc*"}}}}, "handle": []any{proxy("h2c")}, "terminal": true},
			object{"handle": []any{proxy("1.1")}},
		}},
	)
	secure["tls_connection_policies"] = []any{
		object{"match": object{"moggy_stranger": object{}}, "drop": true},
		object{},
	}
	return json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"writer": object{"output": "stderr"}, "encoder": object{"format": "json"}, "level": "INFO"}}},
		"storage": object{"module": "moggy"},
		"apps": object{
			"http": object{"http_port": httpPort, "https_port": httpsPort, "grace_period": caddy.Duration(graceFor), "servers": object{"plain": plain, "secure": secure}},
			"tls":  object{"automation": object{"policies": []any{object{"issuers": []any{issuer}}}}, "disable_storage_clean": true, "disable_ocsp_stapling": true},
		},
	})
}

// proxy is the handler that asks backends, which speak HTTP of that version.
func proxy(version string) object {
	return object{
		"handler":           "reverse_proxy",
		"transport":         object{"protocol": "moggy", "versions": []string{version}, "dial_timeout": caddy.Duration(dialTimeout), "compression": false},
		"dynamic_upstreams": object{"source": "moggy"},
		"load_balancing":    object{"try_duration": caddy.Duration(tryFor), "try_interval": caddy.Duration(1), "retry_match": []any{object{"moggy_repeatable": object{}}}},
	}
}
