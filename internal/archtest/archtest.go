// Package archtest keeps the architecture true: its tests read the import
// graph and fail when a package reaches up or sideways, when a pure one touches
// the world, or when a room grows too large. It has no other code.
package archtest
