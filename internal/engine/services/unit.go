package services

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// render is the unit file of an instance.
func render(s fleet.Service, program string, here fleet.NodeLock) []byte {
	var b strings.Builder
	b.WriteString("# Written by moggy; a change made here is shown as drift and taken back.\n")
	fmt.Fprintf(&b, "[Unit]\nDescription=moggy service %s\n", s.Name)
	if s.Image != "" {
		b.WriteString("After=network.target moggy-agent.service docker.service\nWants=docker.service\n")
	} else {
		b.WriteString("After=network.target moggy-agent.service\n")
	}
	b.WriteString("StartLimitIntervalSec=0\n\n[Service]\nRestart=always\nRestartSec=1\n")
	if s.Image != "" {
		container(&b, s, here)
	} else {
		sandboxed(&b, s, program, here)
	}
	b.WriteString("\n[Install]\nWantedBy=multi-user.target\n")
	return []byte(b.String())
}

// environment is what an instance is told.
func environment(s fleet.Service, here fleet.NodeLock) []fleet.Variable {
	vars := []fleet.Variable{{Name: "MOGGY_SERVICE", Value: string(s.Name)}, {Name: "MOGGY_NODE", Value: string(here.Name)}}
	if s.Port > 0 {
		port := strconv.Itoa(int(s.Port))
		if s.Image == "" { // a container has an address of its own, and listens on all
			vars = append(vars, fleet.Variable{Name: "MOGGY_ADDRESS", Value: netip.AddrPortFrom(here.V4, s.Port).String()})
		}
		vars = append(vars, fleet.Variable{Name: "PORT", Value: port})
	}
	return append(vars, s.Env...)
}

// unprivileged is the first port that anybody may listen on (ip_unprivileged_port_start
// of Documentation/networking/ip-sysctl.rst, as it is by default).
const unprivileged = 1024

// sandboxed writes how a program runs: what is not there it may not do. It is
// nobody in particular, and sees no other's files.
func sandboxed(b *strings.Builder, s fleet.Service, program string, here fleet.NodeLock) {
	for _, v := range environment(s, here) {
		fmt.Fprintf(b, "Environment=%s\n", quote(v.Name+"="+v.Value))
	}
	fmt.Fprintf(b, "ExecStart=%s\n", command(append([]string{program}, s.Args...)))
	if s.Memory > 0 {
		fmt.Fprintf(b, "MemoryMax=%d\n", s.Memory)
	}
	for _, v := range s.Volumes {
		dir := fmt.Sprintf("moggy-volumes/%s/%s", s.Name, v.Name)
		fmt.Fprintf(b, "StateDirectory=%s\nBindPaths=%s\n", dir, quote("/var/lib/private/"+dir+":"+v.Path))
	}
	if s.Port > 0 && s.Port < unprivileged {
		b.WriteString("AmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n")
	} else {
		b.WriteString("CapabilityBoundingSet=\n")
	}
	b.WriteString(sandbox)
}

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
`

const docker = "/usr/bin/docker"

// grace is how long a container may take to end when it is asked to, in seconds:
// Docker's own.
const grace = 10

// container writes how an image runs: in the foreground of Docker's client, so
// that what it says is in the unit's log, and its end is the unit's. Its port is
// open on the mesh's address and nowhere else. Its environment is in a file: not
// in the command line, and nothing in it is taken for Docker's own.
func container(b *strings.Builder, s fleet.Service, here fleet.NodeLock) {
	name := "moggy-" + string(s.Name)
	run := []string{
		docker, "run", "--rm", "--name", name, "--label", "moggy.service=" + string(s.Name), "--log-driver", "none",
		"--security-opt", "no-new-privileges", "--cap-drop", "AUDIT_WRITE", "--cap-drop", "MKNOD", "--cap-drop", "NET_RAW", "--pids-limit", "4096",
	}
	if s.Memory > 0 {
		memory := strconv.FormatUint(s.Memory, 10)
		run = append(run, "--memory", memory, "--memory-swap", memory)
	}
	if s.Port > 0 {
		run = append(run, "--publish", fmt.Sprintf("%s:%d:%d", here.V4, s.Port, s.Port))
	}
	for _, v := range s.Volumes {
		run = append(run, "--mount", fmt.Sprintf("type=volume,src=moggy-%s-%s,dst=%s", s.Name, v.Name, v.Path))
	}
	run = append(append(run, "--env-file", envPath(s.Name), s.Image), s.Args...)
	remove := command([]string{"/bin/sh", "-c", "exec " + docker + " rm --force " + name + " >/dev/null 2>&1"})
	fmt.Fprintf(b, "ExecStartPre=-%s\nExecStart=%s\n", remove, command(run))
	fmt.Fprintf(b, "ExecStop=-%s\nExecStopPost=-%s\n", command([]string{docker, "stop", "--time", strconv.Itoa(grace), name}), remove)
	fmt.Fprintf(b, "TimeoutStartSec=infinity\nTimeoutStopSec=%d\nEnvironment=HOME=/root\n", 2*grace)
}

// envPath is where a container's environment stands.
func envPath(s fleet.ServiceName) string { return "/etc/moggy/services/" + string(s) + ".env" }

// envFile is a container's environment as Docker reads it: each line as it is, up
// to its end.
func envFile(s fleet.Service, here fleet.NodeLock) fleet.File {
	var b strings.Builder
	for _, v := range environment(s, here) {
		fmt.Fprintf(&b, "%s=%s\n", v.Name, v.Value)
	}
	return fleet.NewFile(envPath(s.Name), 0o600, []byte(b.String()))
}

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
