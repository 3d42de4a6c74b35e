// Package source is what the files that moggy reads have in common: texts with
// places in them, cut into top-level blocks before HCL parses each; conflict
// markers and private keys that must not be there; and diagnostics, drawn under
// the line they are about. It knows HCL's syntax, and no block's meaning.
package source
