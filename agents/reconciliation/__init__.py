"""Why a provider's bill and our estimate differ, to the last digit."""
