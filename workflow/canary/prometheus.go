package canary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

type query struct{ Prometheus }

var errNotOne = errors.New("the query's result is not one number")

// maxValues bounds what one window keeps: a day at one a second. Later values
// are counted, not kept.
const maxValues = 86_400

func (q *query) measure(ctx context.Context, window time.Duration) Measurement {
	m := Measurement{Codes: []string{}, Kind: "prometheus", Name: q.Name}
	client := newClient(q.Timeout, 1)
	defer client.CloseIdleConnections()
	var values []float64
	every(ctx, q.Interval, window, func() {
		value, err := q.ask(ctx, client)
		if ctx.Err() != nil {
			return
		}
		m.Samples++
		if err != nil {
			m.Errors++
			m.explain(err.Error())
		} else if len(values) < maxValues {
			values = append(values, value)
		}
	})
	m.setErrorRate()
	if n := len(values); n > 0 {
		slices.Sort(values)
		m.Value = strconv.FormatFloat(values[(n+1)/2-1], 'g', -1, 64)
	}
	return m
}

// ask is one instant query by Prometheus' HTTP API.
func (q *query) ask(ctx context.Context, client *http.Client) (float64, error) {
	address := strings.TrimSuffix(q.URL, "/") + "/api/v1/query?" + url.Values{"query": {q.Query}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return 0, err
	}
	return parseAnswer(resp.StatusCode, body)
}

func parseAnswer(status int, body []byte) (float64, error) {
	var answer struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   struct {
			Type   string         `json:"resultType"`
			Result jsontext.Value `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("status %d and no Prometheus answer: %w", status, err)
	}
	if status != http.StatusOK || answer.Status != "success" {
		return 0, fmt.Errorf("prometheus refuses the query with status %d: %.150s", status, answer.Error)
	}
	sample := answer.Data.Result
	if answer.Data.Type == "vector" {
		var vector []struct {
			Value jsontext.Value `json:"value"`
		}
		if err := json.Unmarshal(sample, &vector); err != nil || len(vector) != 1 {
			return 0, errNotOne
		}
		sample = vector[0].Value
	} else if answer.Data.Type != "scalar" {
		return 0, errNotOne
	}
	var pair []jsontext.Value // [time, "value"]
	var text string
	if err := json.Unmarshal(sample, &pair); err != nil || len(pair) != 2 {
		return 0, errNotOne
	}
	if err := json.Unmarshal(pair[1], &text); err != nil {
		return 0, errNotOne
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(value) {
		return 0, errNotOne
	}
	return value, nil
}

func (q *query) judge(now, before *Measurement) []string {
	var codes []string
	if now.Samples-now.Errors < q.MinSamples {
		codes = append(codes, codeFewSamples)
	}
	value, err := strconv.ParseFloat(now.Value, 64)
	if err != nil {
		return codes
	}
	if q.Min != nil && value < *q.Min || q.Max != nil && value > *q.Max {
		codes = append(codes, "prometheus")
	}
	if before == nil || q.Factor == 0 {
		return codes
	}
	if was, err := strconv.ParseFloat(before.Value, 64); err == nil && regressed(value, was, q.Factor, q.Floor) {
		codes = append(codes, "regression_prometheus")
	}
	return codes
}
