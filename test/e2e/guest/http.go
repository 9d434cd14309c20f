package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
)

func serveHTTP(args []string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello, world\n") })
	mux.HandleFunc("POST /sha256", hash)
	mux.HandleFunc("GET /data", data)
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	ready()
	return http.Serve(l, mux)
}

// hash answers with the SHA-256 of the body.
func hash(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%x %d\n", h.Sum(nil), n)
}

// data answers with n bytes that follow from the seed.
func data(w http.ResponseWriter, r *http.Request) {
	n, err1 := strconv.ParseInt(r.FormValue("n"), 10, 64)
	seed, err2 := strconv.Atoi(r.FormValue("seed"))
	if err1 != nil || err2 != nil {
		http.Error(w, "want n and seed", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(w, rand.NewChaCha8([32]byte{byte(seed)}), n) // an error is the client's to see
}
