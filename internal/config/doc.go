// Package config reads the instance configuration files of Caladan and
// Junction, so that theirs work as they are.
//
// A file is lines of "key value", separated by blanks. Empty lines and what
// follows a "#" that stands at the start of a line or after a blank are
// ignored. Each key may occur once; static_arp, which takes two values
// (address and MAC), may occur once per address. No key is required.
//
// Stricter than Caladan's runtime/cfg.c: a switch such as disable_watchdog is
// off when its value is 0 (there, any value switches it on), a repeated key is
// an error (there, the last one wins), and so is a value too many (there, it
// is ignored).
//
// The package is pure but for Load. Its functions may be called concurrently.
package config
