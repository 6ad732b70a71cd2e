package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// proxy stands between kgctl and a gateway, and changes answers.
func proxy(e *testscript.Env, g *gateway, change func(r *http.Request, body []byte) []byte) string {
	target, err := url.Parse(g.url)
	if err != nil {
		panic(err)
	}
	p := httputil.NewSingleHostReverseProxy(target)
	p.ModifyResponse = func(answer *http.Response) error {
		if answer.StatusCode != http.StatusOK || strings.Contains(answer.Header.Get("Content-Type"), "event-stream") {
			return nil
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			return err
		}
		body = change(answer.Request, body)
		answer.Body = io.NopCloser(bytes.NewReader(body))
		answer.ContentLength = int64(len(body))
		answer.Header.Set("Content-Length", strconv.Itoa(len(body)))
		return nil
	}
	server := httptest.NewServer(p)
	e.Defer(server.Close)
	return server.URL
}

// liar is a gateway that alters what it was given: /artifact the artifacts,
// /manifest the rationale in manifests, /registry the registry's documents.
func liar(e *testscript.Env, g *gateway) string {
	return proxyUnder(e, g, func(mode string, r *http.Request, body []byte) []byte {
		switch {
		case mode == "artifact" && strings.HasPrefix(r.URL.Path, "/v1/artifacts/"):
			return append(body, "!"...)
		case mode == "manifest" && strings.HasPrefix(r.URL.Path, "/v1/upgrades/"):
			return forgeManifest(body)
		case mode == "registry" && r.URL.Path == "/v1/registry":
			var chain client.RegistryChain
			if json.Unmarshal(body, &chain) == nil {
				chain.Entries[0].Document = bytes.Replace(chain.Entries[0].Document, []byte("Operations"), []byte("operations"), 1)
				body, _ = json.Marshal(chain)
			}
		}
		return body
	})
}

// proxyUnder takes the mode from the first part of the path.
func proxyUnder(e *testscript.Env, g *gateway, change func(mode string, r *http.Request, body []byte) []byte) string {
	target, err := url.Parse(g.url)
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	for _, mode := range []string{"artifact", "manifest", "registry"} {
		inner, err := url.Parse(proxy(e, g, func(r *http.Request, body []byte) []byte { return change(mode, r, body) }))
		if err != nil {
			panic(err)
		}
		mux.Handle("/"+mode+"/", http.StripPrefix("/"+mode, httputil.NewSingleHostReverseProxy(inner)))
	}
	server := httptest.NewServer(mux)
	e.Defer(server.Close)
	_ = target
	return server.URL
}

// forgeManifest changes what a manifest says, and all that the gateway says of it.
func forgeManifest(body []byte) []byte {
	var d client.UpgradeDetail
	if json.Unmarshal(body, &d) != nil {
		return body
	}
	for i := range d.Records {
		if d.Records[i].Kind != workflow.KindManifest {
			continue
		}
		env, err := envelope.Parse(d.Records[i].Body)
		if err != nil {
			return body
		}
		env.Payload = bytes.Replace(env.Payload, []byte(`"rationale":"`), []byte(`"rationale":"Harmless. `), 1)
		d.Records[i].Body = env.Bytes()
		d.Upgrade.ManifestDigest = env.PayloadDigest().String()
	}
	body, _ = json.Marshal(d)
	return body
}

// changer is a gateway where CI reports a failure between the first and the
// second time that somebody reads an upgrade.
func changer(e *testscript.Env, g *gateway, ci signer.Signer) string {
	var once sync.Once
	return proxy(e, g, func(r *http.Request, body []byte) []byte {
		var d client.UpgradeDetail
		if !strings.HasPrefix(r.URL.Path, "/v1/upgrades/") || json.Unmarshal(body, &d) != nil || len(d.Records) == 0 {
			return body
		}
		once.Do(func() {
			env, err := envelope.Parse(d.Records[0].Body)
			if err != nil {
				panic(err)
			}
			m, err := upgrade.OpenManifest(env)
			if err != nil {
				panic(err)
			}
			found := statement("web", m.PatchHash, testFlags{name: "unit"}, outcome{Result: "FAILED"}, m.Timestamp)
			env, err = envelope.Seal(context.Background(), ci, envelope.TypeInToto, found)
			if err == nil {
				_, err = g.engine.Submit(context.Background(), workflow.KindTestResult, env)
			}
			if err != nil {
				panic(err)
			}
		})
		return body
	})
}
