package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
)

// archive is a tar.gz of a small web page, with the style sheet that it names or without.
func archive(title string, styled bool) ([]byte, error) {
	page := fmt.Sprintf("<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>%[1]s</title>\n<link rel=\"stylesheet\" href=\"style.css\"><h1>%[1]s</h1></html>\n", html.EscapeString(title))
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	files := [][2]string{{"index.html", page}}
	if styled {
		files = append(files, [2]string{"style.css", "h1 { font-family: sans-serif }\n"})
	}
	for _, file := range files {
		if err := w.WriteHeader(&tar.Header{Name: file[0], Mode: 0o644, Size: int64(len(file[1]))}); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, file[1]); err != nil {
			return nil, err
		}
	}
	err := errors.Join(w.Close(), z.Close())
	return out.Bytes(), err
}

// page is what the web server shows: the quoted title, or the status.
func (d *demo) page() string {
	response, err := http.Get(d.siteURL + "/") // our own server, on loopback
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err.Error()
	}
	_, rest, found := strings.Cut(string(body), "<h1>")
	title, _, closed := strings.Cut(rest, "</h1>")
	if response.StatusCode != http.StatusOK || !found || !closed {
		return response.Status
	}
	return quoted(html.UnescapeString(title))
}

// expect checks what the page shows.
func (d *demo) expect(title string) error {
	if now := d.page(); now != quoted(title) {
		return fmt.Errorf("the page shows %s, not %s", now, quoted(title))
	}
	return nil
}

func quoted(title string) string { return `"` + title + `"` }
