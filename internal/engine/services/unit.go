package services

import (
	"fmt"
	"strings"
)

// sandbox is what every instance is in. A program that makes machine code at run
// time works in it (so there is no MemoryDenyWriteExecute), and so does one that
// lists network interfaces (AF_NETLINK).
const sandbox = `DynamicUser=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateDevices=yes
PrivateTmp=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077

[Install]
WantedBy=multi-user.target
`

// quote writes a word so that systemd reads it as it was (systemd.syntax(7),
// "Quoting"): specifiers are not resolved in it.
func quote(word string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(word) {
		switch {
		case c == '"', c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '%':
			b.WriteString("%%")
		case c < ' ', c == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// command writes the words of ExecStart, where systemd would also replace
// variables (systemd.service(5), "Command lines").
func command(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = strings.ReplaceAll(quote(w), "$", "$$")
	}
	return strings.Join(out, " ")
}
