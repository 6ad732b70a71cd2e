package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// errRefused marks an answer that says this very message will never be taken.
var errRefused = errors.New("the receiver refuses this message")

// maxAnswer is how many bytes of a receiver's answer are read.
const maxAnswer = 64 << 10

// poster posts JSON and follows nothing.
type poster struct {
	client *http.Client
	url    string
}

func newPoster(address string, d dialer, caFile string) (poster, error) {
	tlsConfig, err := tlsOf(caFile)
	if err != nil {
		return poster{}, err
	}
	return poster{url: address, client: &http.Client{
		Timeout:       sendTimeout,
		Transport:     &http.Transport{DialContext: d.DialContext, TLSClientConfig: tlsConfig, MaxIdleConns: 2, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxAnswer},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (p poster) post(ctx context.Context, body []byte, header http.Header) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("the receiver's URL is malformed")
	}
	req.Header = header
	resp, err := p.client.Do(req)
	if err != nil {
		// The error's text has the URL, which may be a secret.
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return err
	}
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge || code == http.StatusUnprocessableEntity:
		return fmt.Errorf("status %d: %w", code, errRefused)
	default:
		return fmt.Errorf("status %d", code)
	}
}

// webhook sends CloudEvents 1.0 in structured mode, signed by Standard Webhooks.
type webhook struct {
	poster
	secret []byte
	now    func() time.Time
}

const secretPrefix = "whsec_"

func parseSecret(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(raw) < 24 || len(raw) > 64 {
		return nil, errors.New("the webhook's secret is not whsec_ and the base64 of 24 to 64 bytes")
	}
	return raw, nil
}

// cloudEvent is the structured form; data is ours.
type cloudEvent struct {
	SpecVersion string        `json:"specversion"`
	ID          string        `json:"id"`
	Source      string        `json:"source"`
	Type        string        `json:"type"`
	Time        envelope.Time `json:"time"`
	Subject     envelope.UUID `json:"subject,omitzero"`
	ContentType string        `json:"datacontenttype"`
	Data        eventData     `json:"data"`
}

type eventData struct {
	Title    string        `json:"title"`
	Text     string        `json:"text"`
	Link     string        `json:"link,omitzero"`
	Priority string        `json:"priority"`
	Target   envelope.ID   `json:"target,omitzero"`
	Actor    envelope.ID   `json:"actor,omitzero"`
	People   []envelope.ID `json:"people"`
	Auditors bool          `json:"auditors"`
}

func (w *webhook) send(ctx context.Context, m Message) error {
	priority := "normal"
	if m.High {
		priority = "high"
	}
	body, err := json.Marshal(cloudEvent{
		SpecVersion: "1.0", ID: m.ID, Source: "kernelgate/" + string(m.Kernel), Type: "com.kernelgate." + m.Type, Time: m.Time, Subject: m.UpgradeID,
		ContentType: "application/json",
		Data:        eventData{Title: m.Title, Text: m.Text, Link: m.Link, Priority: priority, Target: m.Target, Actor: m.Actor, People: m.People, Auditors: m.Auditors},
	})
	if err != nil {
		return err
	}
	stamp := strconv.FormatInt(w.now().Unix(), 10)
	mac := hmac.New(sha256.New, w.secret)
	mac.Write([]byte(m.ID + "." + stamp + "."))
	mac.Write(body)
	header := http.Header{}
	header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	header.Set("webhook-id", m.ID)
	header.Set("webhook-timestamp", stamp)
	header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return w.post(ctx, body, header)
}

// slack posts the text alone.
type slack struct{ poster }

func (s *slack) send(ctx context.Context, m Message) error {
	// Slack reads <, > and & as markup of its own.
	text := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(m.Text)
	body, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		return err
	}
	return s.post(ctx, body, http.Header{"Content-Type": {"application/json; charset=utf-8"}})
}
