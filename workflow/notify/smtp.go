package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/smtp"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// mailer sends one mail per message to all of its people at once.
type mailer struct {
	SMTP
	dialer   dialer
	tls      *tls.Config
	password string
	people   map[string]string
	auditors []string
}

// addresses are those of the message's people who have one.
func (s *mailer) addresses(m Message) []string {
	var list []string
	for _, id := range m.People {
		if a, ok := s.people[string(id)]; ok {
			list = append(list, a)
		}
	}
	if m.Auditors {
		list = append(list, s.auditors...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (s *mailer) send(ctx context.Context, m Message) error {
	to := s.addresses(m)
	if len(to) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	conn, err := s.dialer.DialContext(ctx, "tcp", s.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn = &bounded{conn, maxTalk}
	// The whole talk is bounded, and ends with ctx.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	client, err := s.login(conn)
	if err != nil {
		return err
	}
	return s.deliver(client, m, to)
}

// maxTalk is how many bytes a mail server may say, its certificates included:
// its lines have no bound of their own.
const maxTalk = 256 << 10

// bounded is a connection that is read from up to a bound.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the mail server says too much")
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (s *mailer) login(conn net.Conn) (*smtp.Client, error) {
	host, _, err := net.SplitHostPort(s.Address)
	if err != nil {
		return nil, err
	}
	config := s.tls.Clone()
	config.ServerName = host
	if s.TLS == "implicit" {
		conn = tls.Client(conn, config)
	}
	client, err := smtp.NewClient(conn, host)
	if err != nil {
		return nil, err
	}
	if s.TLS == "starttls" {
		if ok, _ := client.Extension("STARTTLS"); !ok {
			return nil, errors.New("the mail server offers no STARTTLS; without it nothing is sent")
		}
		if err := client.StartTLS(config); err != nil {
			return nil, err
		}
	}
	if s.User != "" {
		if err := client.Auth(smtp.PlainAuth("", s.User, s.password, host)); err != nil {
			return nil, errors.New("the mail server refuses the login") // its words may repeat what was sent
		}
	}
	return client, nil
}

func (s *mailer) deliver(client *smtp.Client, m Message, to []string) error {
	if err := client.Mail(s.From); err != nil {
		return err
	}
	accepted := 0
	var last error
	for _, address := range to {
		err := client.Rcpt(address)
		if err == nil {
			accepted++
			continue
		}
		// One mailbox that is gone does not keep the others from their mail.
		var refused *textproto.Error
		if !errors.As(err, &refused) || refused.Code < 500 {
			return err
		}
		last = err
	}
	if accepted == 0 {
		return fmt.Errorf("%w: %w", errRefused, last)
	}
	w, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(s.mail(m, to)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = client.Quit() // the mail is accepted; how the server parts is its own matter
	return nil
}

func (s *mailer) mail(m Message, to []string) []byte {
	var b bytes.Buffer
	domain := s.From[strings.LastIndex(s.From, "@")+1:]
	for _, h := range [][2]string{
		{"From", s.From}, {"To", strings.Join(to, ", ")}, {"Subject", mime.QEncoding.Encode("utf-8", "[kernelgate] "+m.Title)},
		{"Date", m.Time.Std().Format(time.RFC1123Z)}, {"Message-ID", "<" + messageID(m) + "@" + domain + ">"},
		{"MIME-Version", "1.0"}, {"Content-Type", "text/plain; charset=utf-8"}, {"Content-Transfer-Encoding", "quoted-printable"},
		{"Auto-Submitted", "auto-generated"},
	} {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	if m.High {
		b.WriteString("X-Priority: 1\r\nImportance: high\r\n")
	}
	b.WriteString("\r\n")
	w := quotedprintable.NewWriter(&b)
	_, _ = w.Write([]byte(strings.ReplaceAll(m.Text, "\n", "\r\n"))) // a buffer takes all
	_ = w.Close()
	return b.Bytes()
}

// messageID is the same for every repeat.
func messageID(m Message) string {
	return envelope.DigestOf([]byte(m.ID)).Hex()[:32]
}
