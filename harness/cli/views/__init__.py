"""What do verbs print in the terminal?"""
