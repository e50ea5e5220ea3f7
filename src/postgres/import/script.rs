//! A script of pg_dump, statement by statement.
//!
//! PostgreSQL's own parser takes it apart, so that nothing depends on how the text looks. What is known of a statement is what
//! the plan needs: which relation it is about, and when its time is.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::slice;

use pgrx::pg_sys::{self, NodeTag};

use crate::postgres::compat;

/// Schema and name of a relation.
pub(super) type Name = (String, String);

/// What stands between settings.
pub(super) const BETWEEN_SETTINGS: &str = ";\n";

/// A statement that creates or alters something.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) text: String,
    /// The settings of the script at its place, as statements.
    pub(super) settings: String,
    /// The relation that it is about; of an index that is created, its table.
    pub(super) about: Option<Name>,
    pub(super) what: What,
}

/// What a statement does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum What {
    /// Makes a schema.
    Schema(String),
    /// Makes a type of this name.
    Type(Name),
    /// Makes a table, ordinary or partitioned.
    Table,
    /// Makes a materialized view, without its rows.
    MaterializedView,
    /// Fills a materialized view.
    Refresh,
    /// Makes the table a part of the one that it is about.
    Attach(Name),
    /// Makes a function of this name.
    Function(Name),
    /// Has a function called for rows that change.
    Trigger(Name),
    /// Is for these roles.
    ForRoles(Vec<String>),
    /// Makes a sequence, or alters one.
    Sequence,
    /// Says that the sequence is a column's; the table.
    SequenceOwner(Name),
    /// Makes an index of this name, by itself or for a constraint.
    Index(String),
    /// Refers to another table.
    ForeignKey(Name),
    /// Says who may do what, or what something is for: no error keeps the rows from being right.
    Ornament,
    /// Anything else.
    Other,
}

/// Takes a script apart. Inside a transaction: the parser allocates.
///
/// Raises an error when it is not SQL of this version.
pub(super) fn parse(script: &str) -> Vec<Statement> {
    let script = without_meta_commands(script);
    let Ok(text) = CString::new(script.as_str()) else { return vec![] };
    let mut settings = BTreeMap::new();
    let mut statements = Vec::new();
    // SAFETY: the text outlives the call; the tree is in the current memory context, which lives until the caller's
    // transaction ends, and is only read.
    unsafe {
        let parsed = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        for cell in cells(parsed) {
            let raw = &*cell.cast::<pg_sys::RawStmt>();
            let begin = usize::try_from(raw.stmt_location).unwrap_or(0);
            let length = usize::try_from(raw.stmt_len).unwrap_or(0);
            let rest = script.get(begin..).unwrap_or_default();
            let text = if length == 0 { rest } else { rest.get(..length).unwrap_or(rest) };
            let text = without_comments(text).trim_end().to_owned();
            if is_setting(raw.stmt, &text, &mut settings) {
                continue;
            }
            let settings = settings.values().cloned().collect::<Vec<String>>().join(BETWEEN_SETTINGS);
            let (about, what) = look_at(raw.stmt);
            statements.push(Statement { text, settings, about, what });
        }
    }
    statements
}

/// The text from its first line that is no comment on.
fn without_comments(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
    }
    rest
}

/// psql's `\restrict` at the beginning, and its counterpart at the end.
fn without_meta_commands(script: &str) -> String {
    let mut token = None;
    let keep = |line: &&str| match line.strip_prefix("\\restrict ") {
        Some(word) if token.is_none() => {
            token = Some(word.trim_end().to_owned());
            false
        }
        _ => !token.as_ref().is_some_and(|token| {
            line.strip_prefix("\\unrestrict ").is_some_and(|word| word.trim_end() == token)
        }),
    };
    script.split_inclusive('\n').filter(keep).collect()
}

/// Settings are kept by name; those that have nothing to do with what is created are passed over.
///
/// # Safety
///
/// `node` is a statement of a raw parse tree.
unsafe fn is_setting(node: *mut pg_sys::Node, text: &str, settings: &mut BTreeMap<String, String>) -> bool {
    // SAFETY: the caller vouches for the node; its tag says what it is.
    unsafe {
        match (*node).type_ {
            NodeTag::T_VariableSetStmt => {
                let name = string((*node.cast::<pg_sys::VariableSetStmt>()).name);
                if HONOURED.contains(&name.as_str()) {
                    settings.insert(name, text.to_owned());
                }
                true
            }
            NodeTag::T_SelectStmt if text.contains("set_config('search_path'") => {
                settings.insert("search_path".to_owned(), text.to_owned());
                true
            }
            _ => false,
        }
    }
}

/// Settings that decide what a statement creates.
const HONOURED: [&str; 5] = [
    "check_function_bodies",
    "default_tablespace",
    "default_table_access_method",
    "search_path",
    "xmloption",
];

/// # Safety
///
/// `node` is a statement of a raw parse tree.
unsafe fn look_at(node: *mut pg_sys::Node) -> (Option<Name>, What) {
    // SAFETY: the caller vouches for the node; its tag says what it is.
    unsafe {
        match (*node).type_ {
            NodeTag::T_CreateStmt => (relation((*node.cast::<pg_sys::CreateStmt>()).relation), What::Table),
            NodeTag::T_AlterTableStmt => look_at_alter(&*node.cast()),
            NodeTag::T_IndexStmt => {
                let index = &*node.cast::<pg_sys::IndexStmt>();
                (relation(index.relation), What::Index(string(index.idxname)))
            }
            NodeTag::T_CreateSeqStmt => {
                (relation((*node.cast::<pg_sys::CreateSeqStmt>()).sequence), What::Sequence)
            }
            NodeTag::T_AlterSeqStmt => look_at_alter_sequence(&*node.cast()),
            NodeTag::T_CreateTrigStmt => {
                let trigger = &*node.cast::<pg_sys::CreateTrigStmt>();
                (relation(trigger.relation), qualified(trigger.funcname).map_or(What::Other, What::Trigger))
            }
            NodeTag::T_RuleStmt => (relation((*node.cast::<pg_sys::RuleStmt>()).relation), What::Other),
            NodeTag::T_CreatePolicyStmt => {
                let policy = &*node.cast::<pg_sys::CreatePolicyStmt>();
                let roles = cells(policy.roles).into_iter().filter_map(|it| role(it.cast())).collect();
                (relation(policy.table), What::ForRoles(roles))
            }
            NodeTag::T_CreateFunctionStmt => (
                None,
                qualified((*node.cast::<pg_sys::CreateFunctionStmt>()).funcname)
                    .map_or(What::Other, What::Function),
            ),
            NodeTag::T_CreateUserMappingStmt => {
                let user = role((*node.cast::<pg_sys::CreateUserMappingStmt>()).user);
                (None, What::ForRoles(user.into_iter().collect()))
            }
            NodeTag::T_RefreshMatViewStmt => {
                (relation((*node.cast::<pg_sys::RefreshMatViewStmt>()).relation), What::Refresh)
            }
            NodeTag::T_CreateTableAsStmt => {
                let into = (*node.cast::<pg_sys::CreateTableAsStmt>()).into;
                (relation((*into).rel), What::MaterializedView)
            }
            NodeTag::T_ViewStmt => (relation((*node.cast::<pg_sys::ViewStmt>()).view), What::Other),
            NodeTag::T_CreateSchemaStmt => {
                (None, What::Schema(string((*node.cast::<pg_sys::CreateSchemaStmt>()).schemaname)))
            }
            NodeTag::T_GrantStmt => {
                let objects = cells((*node.cast::<pg_sys::GrantStmt>()).objects);
                let first = objects.first().copied().map(|it| it.cast::<pg_sys::Node>());
                let range = first.filter(|it| (**it).type_ == NodeTag::T_RangeVar);
                (range.and_then(|it| relation(it.cast())), What::Ornament)
            }
            NodeTag::T_CommentStmt => {
                (commented((*node.cast::<pg_sys::CommentStmt>()).object), What::Ornament)
            }
            NodeTag::T_AlterOwnerStmt
            | NodeTag::T_AlterDefaultPrivilegesStmt
            | NodeTag::T_SecLabelStmt
            | NodeTag::T_GrantRoleStmt => (None, What::Ornament),
            _ => (None, look_at_type(node)),
        }
    }
}

/// # Safety
///
/// `node` is a statement of a raw parse tree.
unsafe fn look_at_type(node: *mut pg_sys::Node) -> What {
    // SAFETY: the caller vouches for the node; its tag says what it is.
    unsafe {
        match (*node).type_ {
            NodeTag::T_CreateEnumStmt => type_of((*node.cast::<pg_sys::CreateEnumStmt>()).typeName),
            NodeTag::T_CreateDomainStmt => type_of((*node.cast::<pg_sys::CreateDomainStmt>()).domainname),
            NodeTag::T_CreateRangeStmt => type_of((*node.cast::<pg_sys::CreateRangeStmt>()).typeName),
            NodeTag::T_CompositeTypeStmt => {
                relation((*node.cast::<pg_sys::CompositeTypeStmt>()).typevar).map_or(What::Other, What::Type)
            }
            _ => What::Other,
        }
    }
}

/// # Safety
///
/// The statement is of a raw parse tree.
unsafe fn look_at_alter(alter: &pg_sys::AlterTableStmt) -> (Option<Name>, What) {
    use pg_sys::{AlterTableType as Type, ConstrType};
    // SAFETY: the caller vouches for the tree; lists of commands have commands in them, whose definition, when it is a
    // constraint, says so by its tag.
    unsafe {
        let about = relation(alter.relation);
        let Some(command) = cells(alter.cmds).first().map(|it| &*it.cast::<pg_sys::AlterTableCmd>()) else {
            return (about, What::Other);
        };
        if command.subtype == Type::AT_ChangeOwner {
            return (about, What::Ornament);
        }
        if alter.objtype == pg_sys::ObjectType::OBJECT_SEQUENCE {
            return (about, What::Sequence);
        }
        if command.subtype == Type::AT_AttachPartition && alter.objtype == pg_sys::ObjectType::OBJECT_TABLE {
            let part = relation((*command.def.cast::<pg_sys::PartitionCmd>()).name);
            return (about, part.map_or(What::Other, What::Attach));
        }
        if command.subtype != Type::AT_AddConstraint || (*command.def).type_ != NodeTag::T_Constraint {
            return (about, What::Other);
        }
        let constraint = &*command.def.cast::<pg_sys::Constraint>();
        let what = match constraint.contype {
            ConstrType::CONSTR_PRIMARY | ConstrType::CONSTR_UNIQUE | ConstrType::CONSTR_EXCLUSION => {
                What::Index(string(constraint.conname))
            }
            ConstrType::CONSTR_FOREIGN => relation(constraint.pktable).map_or(What::Other, What::ForeignKey),
            _ => What::Other,
        };
        (about, what)
    }
}

/// # Safety
///
/// The statement is of a raw parse tree.
unsafe fn look_at_alter_sequence(alter: &pg_sys::AlterSeqStmt) -> (Option<Name>, What) {
    // SAFETY: the caller vouches for the tree; options are DefElem nodes, and `owned_by` has a list of names.
    unsafe {
        let about = relation(alter.sequence);
        for option in cells(alter.options) {
            let option = &*option.cast::<pg_sys::DefElem>();
            if string(option.defname) == "owned_by" && !option.arg.is_null() {
                let names = names(option.arg.cast());
                if let [schema, table, _] = names.as_slice() {
                    return (about, What::SequenceOwner((schema.clone(), table.clone())));
                }
            }
        }
        (about, What::Sequence)
    }
}

/// The relation that a comment is on, or on a part of.
///
/// # Safety
///
/// `object` is that of a comment in a raw parse tree.
unsafe fn commented(object: *mut pg_sys::Node) -> Option<Name> {
    // SAFETY: the caller vouches; the tag says whether it is a list.
    unsafe {
        if object.is_null() || (*object).type_ != NodeTag::T_List {
            return None;
        }
        match names(object.cast()).as_slice() {
            [schema, name] | [schema, name, _] => Some((schema.clone(), name.clone())),
            _ => None,
        }
    }
}

/// # Safety
///
/// `list` is a list of strings, or null.
unsafe fn type_of(list: *mut pg_sys::List) -> What {
    // SAFETY: the caller vouches.
    unsafe { qualified(list) }.map_or(What::Other, What::Type)
}

/// # Safety
///
/// `list` is a list of nodes, or null; those that are no strings are passed over.
unsafe fn names(list: *mut pg_sys::List) -> Vec<String> {
    // SAFETY: the caller vouches; the tag says what a node is.
    unsafe {
        let strings = cells(list).into_iter().map(|it| it.cast::<pg_sys::Node>());
        strings
            .filter(|it| (**it).type_ == NodeTag::T_String)
            .map(|it| string(compat::string_of_node(it)))
            .collect()
    }
}

/// # Safety
///
/// `range` is of a raw parse tree, or null.
unsafe fn relation(range: *const pg_sys::RangeVar) -> Option<Name> {
    // SAFETY: the caller vouches.
    unsafe { range.as_ref().map(|range| (string(range.schemaname), string(range.relname))) }
}

/// Schema and name of what is no relation.
///
/// # Safety
///
/// `list` is a list of strings, or null.
unsafe fn qualified(list: *mut pg_sys::List) -> Option<Name> {
    // SAFETY: the caller vouches.
    match unsafe { names(list) }.as_slice() {
        [schema, name] => Some((schema.clone(), name.clone())),
        _ => None,
    }
}

/// The role of this name; none for PUBLIC, and for words that stand for a role.
///
/// # Safety
///
/// `role` is of a raw parse tree, or null.
unsafe fn role(role: *const pg_sys::RoleSpec) -> Option<String> {
    // SAFETY: the caller vouches.
    let role = unsafe { role.as_ref() }?;
    let is_named = role.roletype == pg_sys::RoleSpecType::ROLESPEC_CSTRING;
    // SAFETY: the name is a string of the tree.
    is_named.then(|| unsafe { string(role.rolename) })
}

/// # Safety
///
/// `list` is a list of pointers, or null.
unsafe fn cells(list: *mut pg_sys::List) -> Vec<*mut std::ffi::c_void> {
    // SAFETY: a list that is not null has as many elements as it says.
    unsafe {
        let Some(list) = list.as_ref() else { return vec![] };
        let length = usize::try_from(list.length).unwrap_or(0);
        slice::from_raw_parts(list.elements, length).iter().map(|cell| cell.ptr_value).collect()
    }
}

/// # Safety
///
/// `pointer` is a C string, or null.
unsafe fn string(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, so a C string.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
