package notify

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// Config is the notifications' part of the configuration; docs/notifications.md
// describes it.
type Config struct {
	Link        string            `yaml:"link"`        // CommandPad's address; messages link below it
	GiveUpAfter time.Duration     `yaml:"giveUpAfter"` // events older than that are not sent any more; 0: 24 h
	People      map[string]string `yaml:"people"`      // mail address of an approver or requestor, by ID
	Auditors    []string          `yaml:"auditors"`    // mail addresses
	Allow       []string          `yaml:"allow"`       // host names and addresses, as URLs have them, that may be private
	Receivers   []Receiver        `yaml:"receivers"`
}

// Receiver is where messages go: exactly one of its three kinds is set. Each
// has a cursor of its own, kept under its name.
type Receiver struct {
	Name    string   `yaml:"name"`
	Events  []string `yaml:"events"` // types; none: every type that concerns people
	Webhook *Webhook `yaml:"webhook"`
	Slack   *Slack   `yaml:"slack"`
	SMTP    *SMTP    `yaml:"smtp"`
}

// Webhook gets CloudEvents, signed as Standard Webhooks says.
type Webhook struct {
	URL        string `yaml:"url"`
	SecretFile string `yaml:"secretFile"` // whsec_ and base64 of 24 to 64 bytes
	CAFile     string `yaml:"caFile"`     // PEM; none: the system's
}

// Slack is any incoming webhook that takes {"text": ...}. Its URL is a secret.
type Slack struct {
	URLFile string `yaml:"urlFile"`
	CAFile  string `yaml:"caFile"`
}

// SMTP sends mail to the people of an event.
type SMTP struct {
	Address      string `yaml:"address"` // host:port
	From         string `yaml:"from"`
	User         string `yaml:"user"` // none: no login
	PasswordFile string `yaml:"passwordFile"`
	TLS          string `yaml:"tls"` // starttls (the default), implicit, or none
	CAFile       string `yaml:"caFile"`
}

const (
	defaultGiveUp = 24 * time.Hour
	maxReceivers  = 32
)

// settle fills in defaults and refuses what can never work.
func (c *Config) settle() error {
	if c.GiveUpAfter == 0 {
		c.GiveUpAfter = defaultGiveUp
	}
	if c.GiveUpAfter < 0 || len(c.Receivers) > maxReceivers {
		return fmt.Errorf("giveUpAfter is above 0, and there are at most %d receivers", maxReceivers)
	}
	if c.Link != "" {
		if _, err := parseURL(c.Link); err != nil {
			return fmt.Errorf("link: %w", err)
		}
	}
	for id, address := range c.People {
		var person envelope.ID
		if err := errors.Join(person.UnmarshalText([]byte(id)), checkAddress(address)); err != nil {
			return fmt.Errorf("people: %w", err)
		}
	}
	for _, address := range c.Auditors {
		if err := checkAddress(address); err != nil {
			return fmt.Errorf("auditors: %w", err)
		}
	}
	names := map[string]bool{}
	for i := range c.Receivers {
		r := &c.Receivers[i]
		if err := r.settle(); err != nil {
			return fmt.Errorf("receiver %q: %w", r.Name, err)
		}
		if names[r.Name] {
			return fmt.Errorf("two receivers are named %q", r.Name)
		}
		names[r.Name] = true
	}
	return nil
}

func (r *Receiver) settle() error {
	var id envelope.ID // the name is part of a cursor's
	if err := id.UnmarshalText([]byte(r.Name)); err != nil {
		return err
	}
	for _, e := range r.Events {
		if _, known := rules[e]; !known && e != ExpiryWarning {
			return fmt.Errorf("nobody is notified of %q", e)
		}
	}
	kinds := 0
	var err error
	if r.Webhook != nil {
		kinds++
		_, err = parseURL(r.Webhook.URL)
	}
	if r.Slack != nil {
		kinds++
	}
	if r.SMTP != nil {
		kinds++
		err = r.SMTP.settle()
	}
	if kinds != 1 {
		return errors.New("set exactly one of webhook, slack, smtp")
	}
	return err
}

func (s *SMTP) settle() error {
	if s.TLS == "" {
		s.TLS = "starttls"
	}
	if s.TLS != "starttls" && s.TLS != "implicit" && s.TLS != "none" {
		return errors.New("tls is starttls, implicit or none")
	}
	if s.User != "" && s.TLS == "none" {
		return errors.New("a password is never sent without TLS")
	}
	if (s.User == "") != (s.PasswordFile == "") {
		return errors.New("set user and passwordFile, or neither")
	}
	if host, _, err := net.SplitHostPort(s.Address); err != nil || host == "" {
		return errors.New("address is not host:port")
	}
	return checkAddress(s.From)
}

func checkAddress(text string) error {
	a, err := mail.ParseAddress(text)
	if err != nil || a.Address != text || strings.ContainsAny(text, "\r\n") {
		return fmt.Errorf("%q is not a mail address", text)
	}
	return nil
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("not a URL of http or https with a host") // its text may be a secret
	}
	if u.User != nil {
		return nil, errors.New("a URL with a user or password in it, which would show in logs")
	}
	return u, nil
}
