#pragma once

#include <string>

#include "fovea/result.h"

#include "args.h"
#include "batch_journal.h"
#include "batch_pictures.h"

namespace fovea::cli {

/// A batch's answers as a table with a header: a row for each box or point, or for each text. A
/// picture in which nothing was found has one row with empty numbers, a question that is not
/// answered one with `yes` in the last column, `missing`. Quoted as RFC 4180 has it; lines end
/// in \n. Errors: the journal cannot be read.
Result<std::string> csv_text(const BatchArgs& args, const BatchPictures& pictures,
                             const BatchJournal& journal);

}  // namespace fovea::cli
