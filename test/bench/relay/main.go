// A minimal relay, for the ingest benchmark: it reads a block, hashes it with BLAKE3, compares the hash with the CID,
// and sends the block to kubo. It checks no tokens, and it has no limits.
package main

import (
	"bytes"
	"encoding/base32"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"lukechampine.com/blake3"
)

const (
	head = "--relay\r\ncontent-disposition: form-data; name=\"data\"; filename=\"blob\"\r\n" +
		"content-type: application/octet-stream\r\n\r\n"
	tail = "\r\n--relay--\r\n"
)

// A CIDv1, raw, BLAKE3, 32 bytes: the digest follows.
var prefix = []byte{0x01, 0x55, 0x1e, 0x20}
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// relay KUBO: prints its address as its first line.
func main() {
	put := os.Args[1] + "/api/v0/block/put?cid-codec=raw&mhtype=blake3&mhlen=32&pin=false"
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	client := &http.Client{Transport: transport}
	slots := make(chan struct{}, 32)
	http.HandleFunc("/v0/block", func(w http.ResponseWriter, r *http.Request) {
		slots <- struct{}{}
		defer func() { <-slots }()
		block := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, block); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		digest := blake3.Sum256(block)
		cid := "b" + encoding.EncodeToString(append(prefix[:4:4], digest[:]...))
		if cid != r.URL.Query().Get("cid") {
			http.Error(w, "the bytes do not match the cid", http.StatusUnprocessableEntity)
			return
		}
		body := io.MultiReader(strings.NewReader(head), bytes.NewReader(block), strings.NewReader(tail))
		request, err := http.NewRequest(http.MethodPost, put, body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		request.ContentLength = int64(len(head) + len(block) + len(tail))
		request.Header.Set("content-type", "multipart/form-data; boundary=relay")
		answer, err := client.Do(request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(cid)) {
			http.Error(w, "kubo: "+string(text), http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "{\"cid\":%q,\"size\":%d}\n", cid, len(block))
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the relay listens on " + listener.Addr().String())
	log.Fatal(http.Serve(listener, nil))
}
