//! What stands behind `?` of each route. Unknown parameters are refused.

use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

/// Which datasets are listed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct DatasetQuery {
    /// Only names or descriptions that contain this text, without regard to case.
    pub q: Option<String>,
    /// Only this namespace.
    #[param(pattern = r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    pub ns: Option<String>,
    /// Only this kind: `dataset` or `model`.
    #[param(pattern = "^(dataset|model)$")]
    pub kind: Option<String>,
    /// Only names behind this one: the `next` of the page before.
    #[param(pattern = r"^[a-z0-9][a-z0-9_-]{0,63}\.[a-z0-9][a-z0-9_-]{0,63}$")]
    pub after: Option<String>,
    /// Most items of the page, 1 to 1000; 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
}

/// Which part of a list of names.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct NameQuery {
    /// Only names behind this one: the `next` of the page before.
    pub after: Option<String>,
    /// Most items of the page, 1 to 1000; 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
}

/// Which part of the list of namespaces.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct NamespaceQuery {
    /// Only namespaces behind this one: the `next` of the page before.
    #[param(pattern = r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    pub after: Option<String>,
    /// Most items of the page, 1 to 1000; 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
}

/// Which versions are listed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct VersionQuery {
    /// Only versions before this number: the `next` of the page before.
    #[param(minimum = 1, maximum = 9007199254740991_i64)]
    #[serde(deserialize_with = "super::number::some_positive")]
    pub before: Option<u64>,
    /// Most items of the page, 1 to 1000; 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
}

/// Which files are listed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct FileQuery {
    /// Only paths that begin with this text.
    pub prefix: Option<String>,
    /// Only paths behind this one: the `next` of the page before.
    pub after: Option<String>,
    /// Most items of the page, 1 to 10000; 1000 when absent.
    #[param(minimum = 1, maximum = 10000)]
    pub limit: Option<usize>,
}

/// Which directory is listed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct DirectoryQuery {
    /// Its path below the location; absent for the top.
    #[param(pattern = r"^(|(?!\.{1,2}(/|$))[^/\x00]+(/(?!\.{1,2}(/|$))[^/\x00]+)*)$")]
    pub path: Option<String>,
    /// Only names behind this one: the `next` of the page before.
    pub after: Option<String>,
    /// Most items of the page, 1 to 1000; 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
}

/// Which version is meant.
#[derive(Clone, Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResolveQuery {
    /// `namespace.table`, and behind it nothing, `@v12`, `@tag` or `@2026-11-20`.
    #[param(
        pattern = r"^[a-z0-9][a-z0-9_-]{0,63}\.[a-z0-9][a-z0-9_-]{0,63}(@(latest|v[1-9][0-9]{0,17}|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(?!v[0-9]+$)[a-z]([a-z0-9_.-]{0,62}[a-z0-9_-])?))?$"
    )]
    pub selector: String,
}

/// Whether something is removed or stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct RemoveQuery {
    /// Take the mark of a first call away again.
    pub keep: bool,
    /// The token that the first call answered with: the second step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
    /// It is a model, and that is meant.
    pub model: bool,
}

/// Which root is meant.
#[derive(Clone, Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RootQuery {
    /// Its URL, as it was added.
    #[param(min_length = 1)]
    pub url: String,
}

/// Which versions are compared.
#[derive(Clone, Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// The earlier one: `v12`, a tag, a day or `latest`.
    #[param(
        pattern = r"^(latest|v?[1-9][0-9]{0,17}|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(?!v[0-9]+$)[a-z]([a-z0-9_.-]{0,62}[a-z0-9_-])?)$"
    )]
    pub from: String,
    /// The later one; `latest` when absent.
    #[param(
        pattern = r"^(latest|v?[1-9][0-9]{0,17}|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(?!v[0-9]+$)[a-z]([a-z0-9_.-]{0,62}[a-z0-9_-])?)$"
    )]
    pub to: Option<String>,
    /// Only paths behind this one: the `next` of the page before.
    #[param(pattern = r"^[^\n]*\n[^\n]*$")]
    pub after: Option<String>,
    /// Most items of the page, 1 to 10000; 1000 when absent.
    #[param(minimum = 1, maximum = 10000)]
    pub limit: Option<usize>,
}

/// From where events are sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only events behind this sequence number; 0 for all that are kept; absent: from now on. The header
    /// `Last-Event-ID`, which browsers send by themselves, wins.
    #[param(minimum = 0, maximum = 9007199254740991_i64)]
    #[serde(deserialize_with = "super::number::some")]
    pub after: Option<u64>,
    /// Whether the stream goes on with what happens from now on; true when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

/// How much of a version is shown.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct SampleQuery {
    /// Most rows, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<usize>,
}

/// What a collection takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct GcQuery {
    /// Only say what would be taken.
    pub dry_run: bool,
    /// What is younger stays, seconds; a day when absent.
    #[param(minimum = 3600)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
}

/// What a scrub reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ScrubQuery {
    /// Only this dataset or model, `namespace.table`.
    pub dataset: Option<String>,
    /// Most bytes of files read a second; 0 for no limit; 100 MiB when absent.
    pub bytes_per_second: Option<u64>,
}

/// Which warm-up jobs are listed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct WarmQuery {
    /// Only those of this dataset.
    #[param(pattern = r"^[a-z0-9][a-z0-9_-]{0,63}\.[a-z0-9][a-z0-9_-]{0,63}$")]
    pub dataset: Option<String>,
    /// Most items, 1 to 400; 50 when absent.
    #[param(minimum = 1, maximum = 400)]
    pub limit: Option<usize>,
}
