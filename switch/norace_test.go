//go:build !race

package modeswitch

const raceEnabled = false
