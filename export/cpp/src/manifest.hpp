#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "bundle.hpp"
#include "json.hpp"

namespace g2sd {

/// A manifest that agrees with its digest, before any other file is looked at.
struct Manifest {
    Json values;
    std::string digest;
};

/// Throws IntegrityError where it is missing, changed or lacks a key; UserError for another format.
Manifest read_manifest(const std::filesystem::path& folder);

/// The files it lists. Throws UserError where the list cannot be read.
std::map<std::string, FileRecord> records_from(const Json& values);

/// An entry of its variants. Throws UserError.
Variant variant_from(const Json& values);

}  // namespace g2sd
