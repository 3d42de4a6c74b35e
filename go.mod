module github.com/moggyfleet/moggy

go 1.26.0

require (
	github.com/aead/siphash v1.0.1 // the MAC of relayed frames: SipHash-2-4 with 128 bits, fast on short ones; MIT
	github.com/aymanbagabas/go-udiff v0.4.1 // differences inside files, in plan; MIT, BSD-3
	github.com/google/go-containerregistry v0.21.0 // the lab's registry of container images; Apache-2.0
	github.com/google/renameio/v2 v2.0.2 // files that are whole after a power loss; Apache-2.0
	github.com/hashicorp/hcl/v2 v2.25.0 // the language of fleet.hcl, with positions; MPL-2.0
	github.com/miekg/dns v1.1.73 // DNS messages and servers; BSD-3
	github.com/hashicorp/nomad/api v0.0.0-20260907080526-08ef8f3d26da // jobs, and the API they go through; MPL-2.0
	github.com/spf13/cobra v1.10.2 // commands, their help, completion that knows nodes; Apache-2.0
	github.com/spf13/pflag v1.0.9 // cobra's flags, where one has two names; BSD-3
	github.com/vishvananda/netlink v1.3.1 // interfaces, addresses, routes; Apache-2.0
	github.com/vishvananda/netns v0.0.5 // the lab's network namespaces; Apache-2.0
	github.com/zclconf/go-cty v1.19.0 // values of HCL expressions; MIT
	golang.org/x/crypto v0.58.0 // X25519 sealing, ChaCha20-Poly1305, BLAKE2s, SSH keys; BSD-3
	golang.org/x/mod v0.41.0 // which of two versions came first; BSD-3
	golang.org/x/net v0.62.0 // many UDP packets in one system call; BSD-3
	golang.org/x/sync v0.24.0 // errgroup: one owner for all tasks; BSD-3
	golang.org/x/sys v0.49.0 // system calls of Linux; BSD-3
	golang.org/x/term v0.47.0 // is there a terminal, how wide, and questions without echo; BSD-3
	golang.zx2c4.com/wireguard v0.0.0-20260522210424-ecfc5a8d5446 // WireGuard itself, in userspace; MIT
)

// Test dependencies.
require (
	github.com/google/go-cmp v0.7.0 // differences in tests; BSD-3
	github.com/rogpeppe/go-internal v1.16.0 // testscript, txtar; BSD-3
)

require (
	github.com/agext/levenshtein v1.2.1 // indirect
	github.com/apparentlymart/go-textseg/v15 v15.0.0 // indirect
	github.com/apparentlymart/go-textseg/v17 v17.0.1 // indirect
	github.com/go-viper/mapstructure/v2 v2.5.0 // indirect
	github.com/gorilla/websocket v1.5.3 // indirect
	github.com/hashicorp/cronexpr v1.1.3 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-rootcerts v1.0.2 // indirect
	
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/mitchellh/go-homedir v1.1.0 // indirect
	github.com/mitchellh/go-wordwrap v1.0.1 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.16.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	golang.zx2c4.com/wintun v0.0.0-20230126152724-0fa3db229ce2 // indirect
)
