package main

import (
	"encoding/json"
	"io"
)

// check prints what this host offers, with what nic offers if it is not empty.
func check(w io.Writer, nic string, asJSON bool) error {
	r := struct {
		Schema int      `json:"schema"`
		NICs   []string `json:"nics"`
	}{1, candidateNICs()}
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	return writeTable(w, r)
}
