// Package authzen is the wire schema of the OpenID AuthZEN Authorization API 1.0
// (https://openid.net/specs/authorization-api-1_0.html): what enforcement points
// ask, and what a decision point answers, as JSON over HTTPS.
//
// It decodes as the specification wants it: members that it does not know are
// passed over, names are case-sensitive, and a required member that is missing
// or of another type is an error that names it. Beyond that it refuses what two
// readers could read in two ways: members that stand twice, invalid UTF-8, input
// beyond its [Limits]. Standard library only.
package authzen

// Default paths of the HTTPS binding (section "HTTPS JSON Binding") and of the
// metadata (section "Policy Decision Point Metadata").
const (
	PathEvaluation     = "/access/v1/evaluation"
	PathEvaluations    = "/access/v1/evaluations"
	PathSearchSubject  = "/access/v1/search/subject"
	PathSearchResource = "/access/v1/search/resource"
	PathSearchAction   = "/access/v1/search/action"
	PathConfiguration  = "/.well-known/authzen-configuration"
)

// HeaderRequestID carries a request's identifier, which the answer repeats.
const HeaderRequestID = "X-Request-ID"

// Entity is a subject or a resource.
type Entity struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	// Properties hold what JSON has: strings, booleans, nil, json.Number,
	// []any and map[string]any. Nil where the request has none.
	Properties map[string]any `json:"properties,omitempty"`
}

// Action is what the subject would do.
type Action struct {
	Name       string         `json:"name"`
	Properties map[string]any `json:"properties,omitempty"`
}

// Evaluation asks whether the subject may do the action to the resource. What is
// missing is nil.
type Evaluation struct {
	Subject  *Entity        `json:"subject,omitempty"`
	Action   *Action        `json:"action,omitempty"`
	Resource *Entity        `json:"resource,omitempty"`
	Context  map[string]any `json:"context,omitempty"`
}

// Semantic says how far the evaluations of one message are gone through.
type Semantic string

// The semantics of section "Evaluations Options".
const (
	ExecuteAll          Semantic = "execute_all"
	DenyOnFirstDeny     Semantic = "deny_on_first_deny"
	PermitOnFirstPermit Semantic = "permit_on_first_permit"
)

// Evaluations are several questions in one message. Each item stands complete:
// what it left out is taken whole from the message's defaults.
type Evaluations struct {
	// Items is empty where the message has none: then it is the one question of
	// Default, and the answer that of an evaluation.
	Items   []Item
	Default Evaluation
	Semantic
}

// Item is one of several evaluations. Err says what is wrong with it: it is
// denied, and the others are answered all the same.
type Item struct {
	Evaluation
	Err error
}

// Decision answers an evaluation.
type Decision struct {
	Decision bool           `json:"decision"`
	Context  map[string]any `json:"context,omitempty"`
}

// Decisions answer evaluations, in their order.
type Decisions struct {
	Evaluations []Decision `json:"evaluations"`
}

// Page asks for a part of a search's results.
type Page struct {
	Token string // of an earlier answer; empty: the first page
	Limit int    // at most so many; 0: the decision point's own
}

// Search asks for what stands in the place of the kind that is searched for.
type Search struct {
	Evaluation
	Page Page
}

// Results answer a search: entities without properties, or actions.
type Results[T any] struct {
	Page    *PageInfo `json:"page,omitempty"`
	Results []T       `json:"results"`
}

// Found is an entity in results.
type Found struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// FoundAction is an action in results.
type FoundAction struct {
	Name string `json:"name"`
}

// PageInfo says where results go on.
type PageInfo struct {
	NextToken string `json:"next_token"` // empty: nowhere
	Count     int    `json:"count"`
	Total     int    `json:"total"`
}

// Configuration is the metadata of a decision point.
type Configuration struct {
	PolicyDecisionPoint string   `json:"policy_decision_point"`
	Evaluation          string   `json:"access_evaluation_endpoint"`
	Evaluations         string   `json:"access_evaluations_endpoint,omitempty"`
	SearchSubject       string   `json:"search_subject_endpoint,omitempty"`
	SearchResource      string   `json:"search_resource_endpoint,omitempty"`
	SearchAction        string   `json:"search_action_endpoint,omitempty"`
	Capabilities        []string `json:"capabilities,omitempty"`
}

// ConfigurationAt is the metadata of a decision point with the default paths
// below base, an https URL without path, query and fragment.
func ConfigurationAt(base string) Configuration {
	return Configuration{
		PolicyDecisionPoint: base,
		Evaluation:          base + PathEvaluation,
		Evaluations:         base + PathEvaluations,
		SearchSubject:       base + PathSearchSubject,
		SearchResource:      base + PathSearchResource,
		SearchAction:        base + PathSearchAction,
	}
}
